"""What a gated step leaves alone: inactive weights, whatever they hold, and gradients."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD

from tests.weight_pruning.gated_cases import (
    every_optimizer,
    masks_of,
    net,
    random_gates,
    same_bits,
    set_gradients,
    values,
)


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
