"""A gated optimiser saved, wrapped late, beside schedulers and scalers; what does not fit."""

import io
import math
import warnings
from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.blocks import parse_block
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
        (
            lambda state: state["blocks"].update({"last.weight": "1x8"}),
            "last.weight is in blocks of 8x1, and in this state in blocks of 1x8",
        ),
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
    gated = GatedOptimizer(optimizers[0], chosen)
    gates = random_gates(gated, 8)
    for step in range(5, 10):
        set_gradients(model, step)
        set_gradients(other, step)
        gated.step(gates)
        optimizers[1].step()
    for name, mask in masks_of(gated, gates).items():
        assert same_bits(values(model)[name][mask], values(other)[name][mask])


@pytest.mark.parametrize("of", ["gated", "wrapped"])
def test_a_scheduler_works(of):
    model, gated = net(partial(SGD, lr=1.0))
    scheduled = gated if of == "gated" else gated.optimizer
    scheduler = torch.optim.lr_scheduler.LambdaLR(scheduled, lambda step: 0.5**step)
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


class Own(AdamW):
    """Somebody's optimiser, whatever it does."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(Own, lr=1.0), "the state of Own is .* AdamW, Adam, SGD, RMSprop"),
        (partial(torch.optim.Adagrad, lr=1.0), "the state of Adagrad is"),
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
        GatedOptimizer(SGD([model.first.bias], lr=1), gated.layers)
    twice = {**gated.layers, "again": gated.layers["first.weight"]}
    with pytest.raises(UserError, match="first.weight and again are one parameter"):
        GatedOptimizer(gated.optimizer, twice)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gates: gates.pop("last.weight"), "last.weight has no gate"),
        (lambda gates: gates.update(more=torch.ones(1)), "gate for more, but no such layer"),
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
