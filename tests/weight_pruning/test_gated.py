"""Gated steps against torch: the plain optimiser, and one of its own for each block."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from asrprune.weight_pruning.masks import block_update
from asrprune.weight_pruning.masks.blocks import expand, grid_of, parse_block
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.masks.prunable import find_layers
from tests.weight_pruning.gated_cases import (
    OPTIMIZERS,
    Net,
    every_optimizer,
    masks_of,
    net,
    random_gates,
    same_bits,
    same_model,
    set_gradients,
    values,
)


@pytest.fixture
def small_slabs(monkeypatch):
    """As many slabs as there can be: a slab has 64 rows at least."""
    monkeypatch.setattr(block_update, "SLAB_ON_CPU", 1)


@every_optimizer
@pytest.mark.parametrize("opened", ["none", "ones"])
def test_open_gates_are_the_plain_optimizer(make, opened):
    model, gated = net(make)
    other = Net()
    plain = make(other.parameters())
    for step in range(20):
        set_gradients(model, step)
        set_gradients(other, step)
        gated.step(None if opened == "none" else random_gates(gated, 0, density=2))
        plain.step()
    assert same_model(model, other)
    assert all((counts == 20).all() for counts in gated.counts.values())


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, "8x1") for name in OPTIMIZERS]
    + [(name, shape) for name in ("adamw", "adamw-fused") for shape in ("1x1", "16x4", "2:4")],
)
def test_a_fixed_mask_has_the_bits_of_the_plain_optimizer(name, shape, small_slabs):
    """Of what survives, for 100 steps with decay; what does not survive keeps the bits it had."""
    model, gated = net(OPTIMIZERS[name], shape, rows=148, columns=12)
    start = values(model)
    other = Net(rows=148, columns=12)
    plain = OPTIMIZERS[name](other.parameters())
    gates = random_gates(gated, 1)
    for step in range(100):
        set_gradients(model, step)
        set_gradients(other, step)
        gated.step(gates)
        plain.step()
    now, expected, masks = values(model), values(other), masks_of(gated, gates)
    for name in now:
        mask = masks.get(name, torch.ones_like(now[name], dtype=torch.bool))
        assert same_bits(now[name][mask], expected[name][mask]), name
        assert same_bits(now[name][~mask], start[name][~mask]), name
    for name, (parameter, _) in gated.layers.items():
        for key, moment in gated.state.get(parameter, {}).items():
            if key != "step":
                assert not moment[~masks[name]].any() and moment[masks[name]].any()


def test_a_fixed_mask_trains_as_a_masked_model():
    """With gradients of a real loss, whose inactive entries are not zero."""
    model, gated = net(rows=40)
    gates = random_gates(gated, 2)
    other = Net(rows=40)
    plain = OPTIMIZERS["adamw"](other.parameters())
    masks = masks_of(gated, gates)
    x = torch.randn(30, 24)
    for _ in range(30):
        for part, optimizer in ((model, gated), (other, plain)):
            weights = dict(part.named_parameters())
            weights |= {
                name: weights[name] - (weights[name] * ~mask).detach()
                for name, mask in masks.items()
            }
            optimizer.zero_grad()
            torch.func.functional_call(part, weights, x).square().mean().backward()
        assert model.first.weight.grad[~masks["first.weight"]].any()
        gated.step(gates)
        plain.step()
    for name, mask in masks.items():
        ours, theirs = values(model)[name], values(other)[name]
        assert same_bits(ours[mask], theirs[mask]) and not same_bits(ours, theirs)


@every_optimizer
@pytest.mark.parametrize("shape", ["8x1", "4x4", "1x1"])
def test_random_gates_are_an_optimizer_for_each_block(make, shape):
    model, gated = net(make, shape, rows=12, columns=3)
    start = values(model)
    own = {}  # (layer, block) -> its entries' indices, parameter and optimiser
    for name, (parameter, layer) in gated.layers.items():
        rows, columns = grid_of(layer.shape, layer.block)
        of_entry = expand(torch.arange(rows * columns), layer.shape, layer.block).flatten()
        for block in range(rows * columns):
            where = (of_entry == block).nonzero()[:, 0]
            alone = nn.Parameter(parameter.detach().flatten()[where].clone())
            own[name, block] = where, alone, make([alone])
    for step in range(30):
        # dense, a mask that comes back, sparse ones, nothing
        density, seed = [(2, 0), (0.5, 7), (0.3, step), (0.3, step), (0, 0)][step % 5]
        gates = random_gates(gated, seed, density)
        set_gradients(model, step)
        gated.step(gates)
        for (name, block), (where, alone, optimizer) in own.items():
            if gates[name][block]:
                alone.grad = gated.layers[name][0].grad.flatten()[where]
                optimizer.step()
    for (name, _), (where, alone, _) in own.items():
        ours = gated.layers[name][0].detach().flatten()[where]
        torch.testing.assert_close(ours, alone.detach(), rtol=1e-6, atol=1e-7)
        assert (ours != start[name].flatten()[where]).all()
    for name, counts in gated.counts.items():
        assert counts.min() < counts.max()
        state = gated.state.get(gated.layers[name][0], {})
        assert state.get("step", counts.max()) == counts.max()
        for block, count in enumerate(counts.tolist()):
            state = own[name, block][2].state
            taken = [int(each["step"]) for each in state.values() if "step" in each]
            assert taken in ([], [count])


def in_halves(make):
    """A net whose first layer has early and late blocks, and each half's own parameter.

    Returns the model, its gated optimiser, the early blocks, the gate of the last layer, the mask
    of the early blocks, and parameters and optimisers of the early and of the late half.
    """
    model, gated = net(make)
    weight = model.first.weight
    count = len(gated.counts["first.weight"])
    early = torch.arange(count) < count // 2
    rest = torch.ones_like(gated.counts["last.weight"], dtype=torch.bool)
    mask = expand(early, weight.shape, gated.layers["first.weight"][1].block)
    alone = [nn.Parameter(weight.detach().clone()) for _ in range(2)]
    optimizers = [make([part]) for part in alone]
    return model, gated, early, rest, mask, alone, optimizers


@pytest.mark.parametrize("name", ["adamw", "adamw-foreach", "adamw-amsgrad", "adam-l2-maximize"])
def test_by_age_has_the_bits_of_torch_too(name):
    """One tensor at a time, by-block bias correction rounds as torch's does."""
    make = OPTIMIZERS[name]
    model, gated, early, rest, mask, alone, optimizers = in_halves(make)
    weight = model.first.weight
    for step in range(30):
        set_gradients(model, step)
        for part in alone:
            part.grad = weight.grad
        gated.step({"first.weight": early | (step >= 10), "last.weight": rest})
        optimizers[0].step()
        if step >= 10:
            optimizers[1].step()
    assert same_bits(weight.detach(), torch.where(mask, *alone).detach())


@pytest.mark.parametrize("name", ["adamw", "adamw-foreach", "adamw-amsgrad", "adam-l2-maximize"])
def test_the_age_of_old_blocks_does_not_matter(name, monkeypatch):
    """Once all bias corrections are 1, torch's own step has the bits of each block's own steps."""
    make = partial(OPTIMIZERS[name], betas=(0.5, 0.6))
    old = next(age for age in range(1000) if 1 - 0.6**age == 1)
    assert 60 < old < 90
    model, gated, early, rest, mask, alone, optimizers = in_halves(make)
    weight = model.first.weight
    by_age, kind = [], gated._update.kind
    counted = lambda *words: (by_age.append(step), kind.step(*words))  # noqa: E731
    monkeypatch.setattr(gated._update, "kind", replace(kind, step=counted))
    for step in range(old + 40):
        set_gradients(model, step)
        for part in alone:
            part.grad = weight.grad
        late = step >= 10 and step % 3 > 0
        gated.step({"first.weight": early | late, "last.weight": rest})
        optimizers[0].step()
        if late:
            optimizers[1].step()
    steps = gated.counts["first.weight"].unique().tolist()
    assert len(steps) == 2 and steps[0] < old  # so far, ages matter
    for step in range(old + 40, 2 * old + 40):
        set_gradients(model, step)
        for part, optimizer in zip(alone, optimizers, strict=True):
            part.grad = weight.grad
            optimizer.step()
        gated.step({"first.weight": torch.ones_like(early), "last.weight": rest})
    assert same_bits(weight.detach(), torch.where(mask, *alone).detach())
    assert gated.state[weight]["step"] == gated.counts["first.weight"].max() == 2 * old + 40
    assert old + 40 - 10 <= max(by_age) < 2 * old + 30


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_round_as_torch(dtype):
    make = OPTIMIZERS["adamw"]
    layer = nn.Linear(8, 64, bias=False).to(dtype)
    block = parse_block("8x1")
    named = {"weight": (layer.weight, find_layers(layer, block)[0])}
    gated = GatedOptimizer(make(layer.parameters()), named)
    late = torch.arange(64) % 2 == 0
    mask = expand(late, layer.weight.shape, block)
    alone = [nn.Parameter(layer.weight.detach().clone()) for _ in range(2)]
    optimizers = [make([part]) for part in alone]
    for step in range(25):
        set_gradients(layer, step)
        gated.step({"weight": late if step % 3 else torch.ones_like(late)})
        for part, optimizer in zip(alone, optimizers, strict=True):
            part.grad = layer.weight.grad
            if optimizer is optimizers[0] or step % 3 == 0:
                optimizer.step()
    expected = torch.where(mask, *alone).detach()
    close = {"rtol": 1e-9, "atol": 0} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 1e-3}
    torch.testing.assert_close(layer.weight.detach(), expected, **close)


def test_a_block_admitted_late_does_not_jump():
    """With one count for all, a weight first admitted at step 1000 would move 5 times as far."""
    model, gated = net(partial(AdamW, lr=1e-3, weight_decay=0))
    closed = random_gates(gated, 4, density=0.5)
    for step in range(1000):
        set_gradients(model, step)
        gated.step(closed)
    before = values(model)
    set_gradients(model, 1000)
    gated.step()
    for name, (parameter, _) in gated.layers.items():
        moved = (parameter.detach() - before[name]).abs()
        assert moved[~masks_of(gated, closed)[name]].sub(1e-3).abs().max() < 1e-6
    gated.step(random_gates(gated, 5))
    for counts in gated.counts.values():
        assert set(counts.tolist()) == {1, 2, 1001, 1002}
