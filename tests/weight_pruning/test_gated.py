"""Gated steps against torch: the plain optimiser, and one of its own for each block."""

import io
import math
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from asrprune.errors import UserError
from asrprune.weight_pruning import block_update
from asrprune.weight_pruning.blocks import expand, grid_of, parse_block
from asrprune.weight_pruning.gated import GatedOptimizer
from asrprune.weight_pruning.prunable import find_layers

OPTIMIZERS = {
    "adamw": partial(AdamW, lr=1e-2, weight_decay=0.1, foreach=False),
    "adamw-foreach": partial(AdamW, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw-fused": partial(AdamW, lr=1e-2, weight_decay=0.1, fused=True),
    "adamw-amsgrad": partial(AdamW, lr=1e-2, weight_decay=0.1, amsgrad=True, betas=(0.8, 0.95)),
    "adam": partial(Adam, lr=1e-2),
    "adam-l2-maximize": partial(Adam, lr=1e-2, weight_decay=0.1, maximize=True),
    "sgd": partial(SGD, lr=1e-2, weight_decay=0.1),
    "sgd-nesterov": partial(SGD, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd-dampening": partial(
        SGD, lr=1e-2, momentum=0.9, dampening=0.4, weight_decay=0.1, maximize=True
    ),
    "sgd-fused": partial(SGD, lr=1e-2, momentum=0.9, fused=True),
    "rmsprop": partial(RMSprop, lr=1e-3, weight_decay=0.1),
    "rmsprop-centered": partial(RMSprop, lr=1e-3, momentum=0.5, centered=True),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Net(nn.Module):
    """Two layers (one a convolution) whose rows and columns 8x1 does not all divide, and a norm."""

    def __init__(self, rows=36, columns=24):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(columns, rows)
        self.norm = nn.LayerNorm(rows)
        self.last = nn.Conv1d(rows, 16, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh()[..., None])


def net(make=OPTIMIZERS["adamw"], block="8x1", **sizes):
    """A model, its optimiser, gated."""
    model = Net(**sizes)
    block = parse_block(block)
    parameters = dict(model.named_parameters())
    layers = find_layers(model, block, ragged="pad")
    optimizer = make(model.parameters())
    chosen = {layer.name: (parameters[layer.name], layer) for layer in layers}
    return model, GatedOptimizer(optimizer, chosen, block)


def random_gates(gated, seed, density=0.5):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(len(counts), generator=generator) < density
        for name, counts in gated.counts.items()
    }


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def masks_of(gated, gates):
    """Which entries are active, in the shape of each layer's parameter."""
    return {
        name: expand(gates[name], layer.shape, gated.block).view(parameter.shape)
        for name, (parameter, layer) in gated.layers.items()
    }


def same_bits(a, b):
    """Equal as stored: NaN is itself, and -0 is not 0."""
    assert a.dtype == b.dtype and a.shape == b.shape
    return a.numpy().tobytes() == b.numpy().tobytes()


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same_model(a, b):
    return all(map(same_bits, values(a).values(), values(b).values()))


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
        rows, columns = grid_of(layer.shape, gated.block)
        of_entry = expand(torch.arange(rows * columns), layer.shape, gated.block).flatten()
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


@pytest.mark.parametrize("name", ["adamw", "adamw-foreach", "adamw-amsgrad", "adam-l2-maximize"])
def test_by_age_has_the_bits_of_torch_too(name):
    """One tensor at a time, by-block bias correction rounds as torch's does."""
    make = OPTIMIZERS[name]
    model, gated = net(make)
    weight = model.first.weight
    count = len(gated.counts["first.weight"])
    early = torch.arange(count) < count // 2
    rest = torch.ones_like(gated.counts["last.weight"], dtype=torch.bool)
    mask = expand(early, weight.shape, gated.block)
    alone = [nn.Parameter(weight.detach().clone()) for _ in range(2)]
    optimizers = [make([part]) for part in alone]
    for step in range(30):
        set_gradients(model, step)
        for part in alone:
            part.grad = weight.grad
        gated.step({"first.weight": early | (step >= 10), "last.weight": rest})
        optimizers[0].step()
        if step >= 10:
            optimizers[1].step()
    assert same_bits(weight.detach(), torch.where(mask, *alone).detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_round_as_torch(dtype):
    make = OPTIMIZERS["adamw"]
    layer = nn.Linear(8, 64, bias=False).to(dtype)
    block = parse_block("8x1")
    named = {"weight": (layer.weight, find_layers(layer, block)[0])}
    gated = GatedOptimizer(make(layer.parameters()), named, block)
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


def test_gradients_are_gated_for_their_norm():
    model, gated = net(block="8x1")
    gates = random_gates(gated, 6)
    set_gradients(model, 0)
    masks = masks_of(gated, gates)
    expected = math.sqrt(
        sum(
            (p.grad * masks.get(name, torch.ones(()))).square().sum().item()
            for name, p in model.named_parameters()
        )
    )
    bias = model.first.bias.grad.clone()
    model.last.weight.grad[~masks["last.weight"]] = math.nan
    gated.gate_gradients(gates)
    norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf)
    assert norm.item() == pytest.approx(expected, rel=1e-6)
    assert same_bits(model.first.bias.grad, bias)
    before = model.first.weight.grad.clone()
    gated.gate_gradients(None)
    assert same_bits(model.first.weight.grad, before)


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("name", ["adamw", "sgd-dampening", "rmsprop-centered"])
def test_a_stopped_training_goes_on_with_the_same_bits(name, stop):
    def train(model, gated, steps):
        for step in steps:
            set_gradients(model, step)
            gated.step(None if step == 2 else random_gates(gated, step, [2, 0.5, 0][step % 3]))

    whole, gated = net(OPTIMIZERS[name])
    train(whole, gated, range(6))
    half, first = net(OPTIMIZERS[name])
    train(half, first, range(stop))
    file = io.BytesIO()
    torch.save([half.state_dict(), first.state_dict()], file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    other, second = net(OPTIMIZERS[name])
    other.load_state_dict(weights)
    second.load_state_dict(state)
    train(other, second, range(stop, 6))
    assert same_model(whole, other)
    assert all(map(torch.equal, gated.counts.values(), second.counts.values()))


def test_loaded_counts_are_its_own():
    _, gated = net()
    _, other = net()
    other.load_state_dict(gated.state_dict())
    other.counts["first.weight"] += 1
    assert not gated.counts["first.weight"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("counts"), "without gates"),
        (lambda state: state["counts"].pop("last.weight"), "last.weight is not in this state"),
        (lambda state: state["counts"].update(more=torch.zeros(1)), "more is only in this state"),
        (lambda state: state.update(block=[1, 8]), "1x8 blocks, not of 8x1"),
        (
            lambda state: state["counts"].update({"last.weight": torch.zeros(3)}),
            "last.weight has 72 blocks, and 3 in this state",
        ),
    ],
)
def test_the_state_of_other_layers_is_refused(change, message):
    _, gated = net()
    state = gated.state_dict()
    change(state)
    with pytest.raises(UserError, match=message):
        gated.load_state_dict(state)


@every_optimizer
def test_a_dense_training_can_be_wrapped_and_gated(make):
    """All blocks are then as old as the parameter: the plain optimiser would go on so."""
    model, other = Net(), Net()
    optimizers = [make(model.parameters()), make(other.parameters())]
    for step in range(5):
        for part, optimizer in zip((model, other), optimizers, strict=True):
            set_gradients(part, step)
            optimizer.step()
    block = parse_block("8x1")
    layers = {layer.name: layer for layer in find_layers(model, block, ragged="pad")}
    chosen = {name: (model.get_parameter(name), layer) for name, layer in layers.items()}
    gated = GatedOptimizer(optimizers[0], chosen, block)
    gates = random_gates(gated, 8)
    for step in range(5, 10):
        set_gradients(model, step)
        set_gradients(other, step)
        gated.step(gates)
        optimizers[1].step()
    for name, mask in masks_of(gated, gates).items():
        assert same_bits(values(model)[name][mask], values(other)[name][mask])


def test_a_scheduler_of_the_wrapped_optimizer_works():
    model, gated = net(partial(SGD, lr=1.0))
    scheduler = torch.optim.lr_scheduler.LambdaLR(gated.optimizer, lambda step: 0.5**step)
    expected = model.first.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as one about a scheduler's step before the optimiser's
        for step in range(3):
            set_gradients(model, step)
            gates = random_gates(gated, step)
            gated.step(gates)
            scheduler.step()
            mask = masks_of(gated, gates)["first.weight"]
            expected -= 0.5**step * model.first.weight.grad * mask
    torch.testing.assert_close(model.first.weight.detach(), expected)


def test_a_scaler_skips_steps_that_overflow():
    model, gated = net(partial(SGD, lr=1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    gates = random_gates(gated, 9)
    mask = masks_of(gated, gates)["first.weight"]
    expected = model.first.weight.detach().clone()
    for step in range(3):
        set_gradients(model, step)
        if step == 1:
            model.first.weight.grad[0, 0] = math.inf
        scaler.unscale_(gated)
        scaler.step(gated, gates)
        scaler.update()
        if step != 1:
            expected -= model.first.weight.grad * mask
    torch.testing.assert_close(model.first.weight.detach(), expected)
    assert gated.counts["first.weight"].max() == 2


def test_a_layer_without_a_gradient_takes_no_step():
    model, gated = net()
    before = values(model)
    set_gradients(model, 0)
    model.first.weight.grad = None
    gated.step(random_gates(gated, 1))
    assert same_bits(model.first.weight.detach(), before["first.weight"])
    assert not gated.counts["first.weight"].any() and gated.counts["last.weight"].any()
    gated.zero_grad()
    gated.step(random_gates(gated, 2))
    assert gated.counts["last.weight"].max() == 1


def test_gradients_are_as_they_were_after_a_step():
    model, gated = net()
    set_gradients(model, 0)
    objects = [parameter.grad for parameter in model.parameters()]
    bits = [gradient.clone() for gradient in objects]
    gated.step(random_gates(gated, 1))
    gated.step(random_gates(gated, 2))
    for parameter, gradient, copy in zip(model.parameters(), objects, bits, strict=True):
        assert parameter.grad is gradient and same_bits(gradient, copy)


def test_inactive_weights_survive_what_gradients_cannot():
    """Not a number, infinity and -0, in weights and gradients outside of the mask."""
    model, gated = net()
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    for step in range(3):
        gates = random_gates(gated, step)
        set_gradients(model, step)
        for name, mask in masks_of(gated, gates).items():
            parameter = gated.layers[name][0]
            parameter.grad[~mask] = odd.repeat(parameter.numel())[: (~mask).sum()]
        before = values(model)
        gated.step(gates)
        for name, mask in masks_of(gated, gates).items():
            now = values(model)[name]
            assert same_bits(now[~mask], before[name][~mask]) and now.isfinite().all()


@every_optimizer
def test_odd_weights_survive_too(make):
    """Those of blocks that were never active, beside active ones of one age and of several."""
    make = make if make.func is SGD else partial(make, eps=0.0)
    model, gated = net(make)
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-42, -1e-45, 3.0])
    never = random_gates(gated, 3)
    with torch.no_grad():
        for name, mask in masks_of(gated, never).items():
            parameter = gated.layers[name][0]
            parameter[mask] = odd.repeat(parameter.numel())[: mask.sum()]
    before = values(model)
    for step in range(4):
        gates = random_gates(gated, step, density=2 if step < 2 else 0.5)
        gates = {name: gate & ~never[name] for name, gate in gates.items()}
        set_gradients(model, step)
        gated.step(gates)
    for name, mask in masks_of(gated, never).items():
        now = values(model)[name]
        assert same_bits(now[mask], before[name][mask]) and now[~mask].isfinite().all()


class Own(AdamW):
    """Somebody's optimiser, whatever it does."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Own, lr=1.0), "what Own keeps .* AdamW, Adam, SGD, RMSprop"),
        (partial(torch.optim.Adagrad, lr=1.0), "what Adagrad keeps"),
        (partial(AdamW, capturable=True), "AdamW with capturable=True"),
        (partial(SGD, differentiable=True), "SGD with differentiable=True"),
    ],
)
def test_unknown_optimizers_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        net(make)


def test_layers_that_do_not_fit_are_refused():
    model, gated = net()
    with pytest.raises(UserError, match="does not train first.weight"):
        GatedOptimizer(SGD([model.first.bias], lr=1), gated.layers, gated.block)
    twice = {**gated.layers, "again": gated.layers["first.weight"]}
    with pytest.raises(UserError, match="first.weight and again are one parameter"):
        GatedOptimizer(gated.optimizer, twice, gated.block)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gates: gates.pop("last.weight"), "last.weight has no gate"),
        (lambda gates: gates.update(more=torch.ones(1)), "gate for more, which is no layer"),
        (
            lambda gates: gates.update({"last.weight": torch.ones(72)}),
            r"last.weight is \(72,\) of torch.float32, and should be \(72,\) of torch.bool",
        ),
        (
            lambda gates: gates.update({"last.weight": torch.ones(8, dtype=torch.bool)}),
            r"last.weight is \(8,\)",
        ),
    ],
)
def test_gates_that_do_not_fit_are_refused(change, message):
    model, gated = net()
    set_gradients(model, 0)
    gates = random_gates(gated, 0)
    change(gates)
    before = values(model)
    for call in (gated.step, gated.gate_gradients):
        with pytest.raises(UserError, match=message):
            call(gates)
    assert all(map(same_bits, values(model).values(), before.values()))
