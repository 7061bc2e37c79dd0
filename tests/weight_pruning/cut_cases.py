"""Trainings by masks and by smaller networks, which have to be one and the same."""

import torch

from asrprune.weight_pruning import GatedOptimizer


def gated(model, bank, **options):
    """An AdamW with gates for the layers of a bank."""
    parameters = bank.parameters()
    layers = {layer.name: (parameters[layer.name], layer) for layer in bank.layers}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    return GatedOptimizer(optimizer, layers, bank.gates())


def check_training_by_slices(make, bank_of, inputs, choices_of, steps, refresh, tolerance):
    """Train by `MaskBank.apply` and by `MaskBank.cut`: weights and optimiser states are equal.

    Returns the numbers of steps of each layer's blocks.
    """
    trained = []
    for way in ("apply", "cut"):
        model = make()
        bank = bank_of(model)
        optimizer = gated(model, bank, lr=0.01, weight_decay=0.1)
        for step in range(steps):
            if step % refresh == 0:
                bank.refresh()
            choices = choices_of(step)
            optimizer.zero_grad()
            for choice in choices:
                with getattr(bank, way)(choice):
                    (model(*inputs(step)) - 1).square().mean().backward()
            for parameter in model.parameters():  # as `Ranks.reduce_gradients` does
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            optimizer.step(bank.union(*choices))
        trained.append((model.state_dict(), optimizer.state_dict()))
    (one, states), (other, cut_states) = trained
    bounds = {"rtol": tolerance, "atol": tolerance}
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], **bounds)
    for number, state in states["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(value, cut_states["state"][number][key], **bounds)
    for name, counts in states["counts"].items():
        assert torch.equal(counts, cut_states["counts"][name])
    return states["counts"]


def check_cut_twice(once, smaller, bank):
    """Cutting ``smaller`` to half again gives the state ``once``."""
    from asrprune.weight_pruning.cutting import cut_state

    twice = cut_state(smaller.state_dict(), bank.groups, bank.blocks(0.5))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
