"""A gated optimiser is a ``torch.optim.Optimizer`` for whatever takes one."""

import copy
import io
import math
import pickle
import warnings
from functools import partial

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, SequentialLR
from torch.optim.optimizer import register_optimizer_step_post_hook

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from tests.weight_pruning.gated_cases import (
    OPTIMIZERS,
    Net,
    every_optimizer,
    net,
    random_gates,
    same_bits,
    same_model,
    set_gradients,
    values,
)


def train(model, gated, steps):
    """Take steps whose gradients and gates follow from their numbers."""
    for step in steps:
        set_gradients(model, step)
        gated.step(random_gates(gated, step))


class Eden:
    """The scheduler of icefall in short: it takes nothing that is no Optimizer."""

    def __init__(self, optimizer, lr_batches):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.lr_batches = lr_batches
        self.batch = 0
        for group in optimizer.param_groups:
            group.setdefault("base_lr", group["lr"])
        self.base_lrs = [group["base_lr"] for group in optimizer.param_groups]

    def step(self):
        self.batch += 1
        factor = ((self.batch / self.lr_batches) ** 2 + 1) ** -0.25
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * factor


SCHEDULERS = {
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
    "one cycle": lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=20),
    "sequential": lambda optimizer: SequentialLR(
        optimizer, [LambdaLR(optimizer, lambda step: 0.1), LambdaLR(optimizer, float)], [2]
    ),
    "eden": lambda optimizer: Eden(optimizer, 3),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_take_it_as_they_take_the_plain_one(name):
    model, gated = net()
    other = Net()
    plain = OPTIMIZERS["adamw"](other.parameters())
    before = plain.param_groups[0]["lr"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as one about a scheduler's step before the optimiser's
        schedulers = [SCHEDULERS[name](optimizer) for optimizer in (gated, plain)]
        for step in range(6):
            set_gradients(model, step)
            set_gradients(other, step)
            gated.step()
            plain.step()
            for scheduler in schedulers:
                scheduler.step()
    assert gated.param_groups[0]["lr"] == plain.param_groups[0]["lr"] != before
    assert same_model(model, other)


def test_groups_state_and_defaults_are_the_wrapped_ones():
    model, gated = net()
    set_gradients(model, 0)
    gated.step()
    plain = gated.optimizer
    assert isinstance(gated, Optimizer) and "lr" in repr(gated)
    assert gated.param_groups is plain.param_groups and gated.state is plain.state
    assert gated.defaults is plain.defaults
    more = torch.nn.Parameter(torch.ones(3))
    gated.add_param_group({"params": [more], "lr": 0.5})
    assert plain.param_groups[-1]["params"] == [more] and plain.param_groups[-1]["lr"] == 0.5
    more.grad = torch.ones(3)
    gated.step(random_gates(gated, 1))
    assert (more != 1).all()
    gated.zero_grad()
    assert more.grad is None and model.first.weight.grad is None
    with pytest.raises(UserError, match="capturable=True cannot be gated"):
        gated.add_param_group({"params": [torch.nn.Parameter(more.data)], "capturable": True})
    assert len(plain.param_groups) == 2


def test_hooks_see_each_step_once():
    model, gated = net()
    seen = []
    gated.register_step_pre_hook(lambda *_: seen.append("before"))
    gated.register_step_post_hook(lambda *_: seen.append("after"))
    gated.optimizer.register_step_post_hook(lambda *_: seen.append("wrapped"))
    handle = register_optimizer_step_post_hook(lambda each, *_: seen.append(each))
    try:
        train(model, gated, range(3))
    finally:
        handle.remove()
    once = ["before", "wrapped", gated.optimizer, "after", gated]
    assert seen == once * 3


def test_hooks_of_a_state_see_all_of_it():
    model, gated = net()
    train(model, gated, range(3))
    seen = []
    gated.register_state_dict_pre_hook(lambda each: seen.append(each))
    gated.register_state_dict_post_hook(lambda each, state: {**state, "note": list(state)})
    gated.register_load_state_dict_pre_hook(lambda each, state: seen.append(state.pop("note")))
    gated.register_load_state_dict_post_hook(lambda each: seen.append("loaded"))
    state = gated.state_dict()
    assert state["note"] == ["state", "param_groups", "blocks", "counts"]
    gated.load_state_dict(state)
    assert "note" in state and seen == [gated, state["note"], "loaded"]


def test_a_closure_is_called_once_with_gradients_on():
    for words in ({}, {"gates": "random"}):
        model, gated = net(partial(SGD, lr=0.1))
        x, losses = torch.randn(4, 24, generator=torch.Generator().manual_seed(0)), []

        def closure(model=model, gated=gated, x=x, losses=losses):
            gated.zero_grad()
            losses.append(model(x).square().mean())
            losses[-1].backward()
            return losses[-1]

        gates = random_gates(gated, 1) if words else None
        found = gated.step(gates, closure) if words else gated.step(closure)
        assert losses == [found] and gated.step(closure=closure) is losses[1]
        assert losses[1] < losses[0]


@every_optimizer
@pytest.mark.parametrize("way", ["pickle", "torch.save", "deepcopy"])
def test_copies_go_on_with_the_same_bits(make, way):
    model, gated = net(make)
    gated.register_step_pre_hook(lambda *_: None)  # torch's optimisers leave hooks behind too
    scheduler = LambdaLR(gated, lambda step: 0.5**step)
    train(model, gated, range(3))
    scheduler.step()
    if way == "deepcopy":
        other, second = copy.deepcopy((model, gated))
    elif way == "pickle":
        other, second = pickle.loads(pickle.dumps((model, gated)))
    else:
        file = io.BytesIO()
        torch.save((model, gated), file)
        file.seek(0)
        other, second = torch.load(file, weights_only=False)
    assert second.layers["first.weight"][0] is other.first.weight
    assert second.param_groups[0]["params"][0] is other.first.weight
    train(other, second, range(3, 6))
    alone = values(other)
    assert not same_model(model, other)  # they share nothing
    train(model, gated, range(3, 6))
    assert same_model(model, other) and all(map(same_bits, values(other).values(), alone.values()))
    assert all(map(torch.equal, gated.counts.values(), second.counts.values()))


@every_optimizer
def test_its_state_is_exact(make):
    """In torch's own layout, to the bit, through a file."""
    model, gated = net(make)
    train(model, gated, range(4))
    file = io.BytesIO()
    torch.save(gated.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert set(saved) == {"state", "param_groups", "blocks", "counts"}
    _, other = net(make)
    other.load_state_dict(saved)
    again, now = other.state_dict(), gated.state_dict()
    assert again["param_groups"] == now["param_groups"] and again["blocks"] == now["blocks"]
    assert again["state"].keys() == now["state"].keys()
    for key, entry in now["state"].items():
        for name, value in entry.items():
            found = again["state"][key][name]
            assert same_bits(found, value) if isinstance(value, torch.Tensor) else found == value
    assert all(map(same_bits, again["counts"].values(), now["counts"].values()))


@pytest.mark.parametrize("make", [partial(SGD, lr=1.0), partial(AdamW, lr=0.1, fused=True)])
@pytest.mark.parametrize("unscaled", [False, True])
def test_a_scaler_takes_it(make, unscaled):
    """It unscales by itself where nobody did, and leaves out what overflows."""
    model, gated = net(make)
    other, plain = net(make)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.zeros(()))
    for step in range(4):
        gates = random_gates(gated, step)
        set_gradients(model, step)
        set_gradients(other, step)
        for parameter in model.parameters():
            parameter.grad *= scaler.get_scale()
        if step == 1:
            model.first.bias.grad[0] = math.inf
        else:
            plain.step(gates)
        if unscaled:
            scaler.unscale_(gated)
        scaler.step(gated, gates)
        scaler.update()
    assert scaler.get_scale() == 2.0
    assert same_model(model, other)
    assert all(map(torch.equal, gated.counts.values(), plain.counts.values()))


def test_it_is_not_wrapped_twice():
    _, gated = net()
    with pytest.raises(UserError, match="the state of GatedOptimizer is not known"):
        GatedOptimizer(gated, gated.layers)
