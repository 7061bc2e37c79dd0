"""Channels: several parameters with one level a unit, cut out exactly."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning import MaskBank, find_channels
from asrprune.weight_pruning.masks.blocks import kept_counts
from asrprune.weight_pruning.masks.cutting import cut_state
from tests.weight_pruning.cut_cases import (
    check_cut_twice,
    check_gradients_of_dropped_units,
    check_training_by_slices,
    gated,
)

WIDTH = 20
CHAINS = {
    "a": (["first.weight", "first.bias"], ["second.weight"]),
    "b": (["third.weight", "gate.weight"], ["fourth.weight"]),
}


class Net(nn.Module):
    """Two modules with inner channels; the second has a gate, and no biases."""

    def __init__(self, widths=(WIDTH, WIDTH), seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Linear(6, widths[0])
            self.second = nn.Linear(widths[0], 5)
            self.third = nn.Linear(5, widths[1], bias=False)
            self.gate = nn.Linear(5, widths[1], bias=False)
            self.fourth = nn.Linear(widths[1], 4)

    def forward(self, x):
        x = self.second(torch.tanh(self.first(x)))
        return self.fourth(self.third(x) * torch.sigmoid(self.gate(x)))


def bank_of(model, multiple=1):
    return MaskBank(model, find_channels(model, CHAINS, multiple=multiple))


def inputs(seed=0):
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_unit_has_the_mean_square_of_all_its_weights():
    model = Net()
    bank = bank_of(model)
    first, bias, second = (model.first.weight, model.first.bias, model.second.weight)
    every = torch.cat([first, bias[:, None], second.T], 1).detach()
    order = every.square().mean(1).argsort()
    for drop in (1, 7, 19):
        kept = bank.blocks({"a": drop / WIDTH, "b": 0})["a"]
        assert kept.sum() == WIDTH - drop and not kept[order[:drop]].any()


@given(st.integers(1, 400), st.sampled_from([1, 2, 8, 16]))
def test_widths_are_multiples_that_fall(units, multiple):
    counts = kept_counts(units, multiple)
    assert counts[0] == units and counts[250] == 0 and counts == sorted(counts, reverse=True)
    for level, count in enumerate(counts[:250]):
        assert count == units or count % multiple == 0
        exact = units * (1 - level / 250)
        assert abs(count - exact) <= max(multiple / 2 + 0.5, multiple - exact)


def test_gradients_of_dropped_channels():
    model = Net().double()
    bank = bank_of(model)
    units = bank.blocks({"a": 0.25, "b": 0.8})
    columns = {"second.weight": ~units["a"], "fourth.weight": ~units["b"]}
    check_gradients_of_dropped_units(model, bank, (inputs(),), units, columns)


@pytest.mark.parametrize("choice", [0.0, 0.4, {"a": 0.25, "b": 0.8}])
def test_cut_masked_and_really_smaller_are_equal(choice):
    model = Net().double()
    bank = bank_of(model)
    with bank.apply(choice):
        masked = model(inputs())
    with bank.cut(choice):
        inside = model(inputs())
    units = bank.blocks(choice)
    smaller = Net(widths=tuple(int(units[name].sum()) for name in "ab")).double()
    smaller.load_state_dict(cut_state(model.state_dict(), bank.groups, units))
    for found in (inside, smaller(inputs())):
        torch.testing.assert_close(found, masked, rtol=1e-12, atol=1e-12)
    assert list(dict(model.named_parameters())) == list(dict(Net().named_parameters()))
    assert all(isinstance(value, nn.Parameter) for value in model.parameters())


def test_cutting_twice_is_cutting_once_to_the_smaller():
    model = Net()
    bank = bank_of(model)
    half, quarter = bank.blocks(0.5), bank.blocks(0.75)
    once = cut_state(model.state_dict(), bank.groups, quarter)
    smaller = Net(widths=(10, 10))
    smaller.load_state_dict(cut_state(model.state_dict(), bank.groups, half))
    check_cut_twice(once, smaller, bank_of(smaller))


@pytest.mark.parametrize("sandwich", [False, True])
def test_training_by_slices_is_training_by_masks(sandwich):
    counts = check_training_by_slices(
        lambda: Net().double(),
        lambda model: bank_of(model, multiple=4),
        lambda step: (inputs(step),),
        lambda step: [
            {"a": 0.1 * (step % 8), "b": 0.3}, *([0.9, 0.0] if sandwich and step % 3 else []),
        ],
        steps=40, refresh=10, tolerance=1e-12,
    )  # fmt: skip
    assert sandwich or all(one.unique().numel() > 1 for one in counts.values())


def test_a_dropped_channel_stands_still_in_all_its_weights():
    model = Net()
    bank = bank_of(model)
    optimizer = gated(model, bank, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with bank.cut(0.5):
        model(inputs().float()).square().sum().backward()
    optimizer.step(bank.blocks(0.5))
    masks = bank.masks(0.5)
    for name, mask in masks.items():
        moved = model.state_dict()[name] != before[name]
        assert not moved[~mask].any() and moved[mask].any(), name


def test_a_saved_bank_goes_on_and_blocks_are_another_thing():
    bank = bank_of(Net())
    bank.name("cy", 0.3)
    other = bank_of(Net(seed=1))
    other.load_state_dict(bank.state_dict())
    assert other.digest() == bank.digest()
    assert torch.equal(other.blocks("cy")["a"], bank.blocks("cy")["a"])
    state = {**bank.state_dict(), "unit": "8x1"}
    with pytest.raises(
        UserError,
        match="unit '8x1'.*'channel'; set weight_pruning.unit=block weight_pruning.block=8x1",
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize(
    ("chains", "options", "message"),
    [
        ({"a": (["first.wieght"], [])}, {}, "no parameter first.wieght.*first.weight"),
        ({"a": (["first.weight"], ["fourth.weight", "first.bias"])}, {}, "do not match"),
        (CHAINS, {"include": ["frist*"]}, "frist"),
        (CHAINS, {"exclude": ["*"]}, "no channels are left of a, b"),
        ({}, {}, "names no channels"),
        ({**CHAINS, "c": (["first.weight"], [])}, {}, "first.weight is in two groups"),
    ],
)
def test_what_cannot_be_channels_is_refused(chains, options, message):
    with pytest.raises(UserError, match=message):
        MaskBank(Net(), find_channels(Net(), chains, **options))


def test_blocks_cannot_be_cut():
    from asrprune.weight_pruning import find_layers, parse_block

    bank = MaskBank(Net(), find_layers(Net(), parse_block("1x1")))
    with pytest.raises(UserError, match="blocks of 1x1 cannot be cut out"), bank.cut(0.5):
        pass
