"""Trainings by masks and by smaller networks, which have to be one and the same."""

import copy

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


def check_gradients_of_dropped_units(model, bank, inputs, choice, columns):
    """With all gradients: outputs of the cut network; of dropped units, gradients of columns.

    The gradients of columns are those of a twin whose dropped columns are zeros. A finite
    difference agrees: how the loss changes if one dropped column gets values.

    Args:
        columns: for each layer with columns, the dropped columns (columns,) bool.
    """
    twin = copy.deepcopy(model)
    for name, dropped in columns.items():
        twin.get_parameter(name).data[:, dropped] = 0
    with torch.no_grad(), bank.cut(choice):
        expected = model(*inputs)
    with bank.apply(choice, all_gradients=True):
        found = model(*inputs)
        found.square().sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    twin(*inputs).square().sum().backward()
    for name, parameter in twin.named_parameters():
        got = model.get_parameter(name).grad
        if parameter.grad is None:
            assert got is None
            continue
        torch.testing.assert_close(got, parameter.grad, rtol=1e-10, atol=1e-12)
    for name, dropped in columns.items():
        slopes = model.get_parameter(name).grad[:, dropped]
        assert (slopes.square().sum(0) > 0).all()
        change = torch.zeros_like(twin.get_parameter(name))
        change[:, dropped.nonzero()[0, 0]] = 1e-4
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                twin.get_parameter(name).add_(sign * change)
                losses.append(twin(*inputs).square().sum().item())
                twin.get_parameter(name).sub_(sign * change)
        slope = model.get_parameter(name).grad.mul(change).sum().item()
        assert abs(slope - (losses[0] - losses[1]) / 2) <= 1e-4 * abs(slope) + 1e-10


def check_cut_twice(once, smaller, bank):
    """Cutting ``smaller`` to half again gives the state ``once``."""
    from asrprune.weight_pruning.masks.cutting import cut_state

    twice = cut_state(smaller.state_dict(), bank.groups, bank.blocks(0.5))
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[name], twice[name]) for name in once)
