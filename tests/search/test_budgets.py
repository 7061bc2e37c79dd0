"""Budgets of a search as people write them, and the sparsities that come with them."""

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.export.budget import BYTES, MILLISECONDS, MULTIPLY_ADDS, WEIGHTS, Measure
from asrprune.export.source import SPARSEST, open_source
from asrprune.search.budgets import budget_of, choices_of, unit_of, windows_of
from asrprune.weight_pruning.masks.blocks import drop_levels, kept
from asrprune.weight_pruning.options import SupernetOptions, WeightPruningOptions, parse_block
from asrprune.weight_pruning.supernet import windows


@pytest.fixture(scope="module")
def source(models):
    return open_source(models["supernet"], [])


@pytest.fixture(scope="module")
def channels(models):
    return open_source(models["none"], ["weight_pruning.unit=channel"])


def test_the_unit_is_one(source, channels):
    bank = source.bank
    assert unit_of(["0.5", "0.7"], bank) == WEIGHTS
    assert unit_of(["0.5", "0.7"], channels.bank) == unit_of(["0.5", "5MB"], bank) == BYTES
    assert unit_of(["0.5", "120MMAC", "0.1GMAC"], bank) == MULTIPLY_ADDS
    assert unit_of(["0.5", "1.2ms"], bank) == MILLISECONDS
    with pytest.raises(
        UserError, match="--budgets 5MB 120MMAC: all budgets of a search have one unit"
    ):
        unit_of(["5MB", "120MMAC", "6MB"], bank)
    for text in ("5", "-0.5", "1", "nan", "5 MMACS"):
        with pytest.raises(UserError, match=f"--budgets: '{text}' is neither a size"):
            unit_of(["0.5", text], bank)


def test_a_sparsity_is_what_the_uniform_one_takes(source):
    measure = Measure(source.model, source.bank, MULTIPLY_ADDS)
    cost = measure.of(0.5)
    assert budget_of("0.5", measure, 0.8).cost == cost
    by_cost = budget_of(f"{cost / 1e3}kMAC", measure, 0.8)
    assert by_cost.cost == pytest.approx(cost, rel=1e-12) and 0.45 < by_cost.sparsity <= 0.504
    assert measure.of(by_cost.sparsity) <= by_cost.cost
    with pytest.raises(UserError, match="--budgets: 0.001 M.* are less than the smallest"):
        budget_of("1kMAC", measure, 0.8)
    with pytest.raises(UserError, match="--budgets 0.9: no sub-network above sparsity 0.8"):
        budget_of("0.9", measure, 0.8)


def test_a_layer_may_have_the_sparsities_of_the_budgets(source):
    measure = Measure(source.model, source.bank, MULTIPLY_ADDS)
    by_size = budget_of(f"{measure.of(0.45) / 1e3 + 0.001}kMAC", measure, 0.8)
    choices = choices_of(
        source.bank.block, 0.8, [by_size.sparsity, budget_of("0.75", measure, 0.8).sparsity]
    )
    assert choices == sorted({*(k / 10 for k in range(9)), 0.752, by_size.sparsity})
    assert choices_of(source.bank.block, 0.85, []) == [*(k / 10 for k in range(9)), 0.852]
    assert choices_of(source.bank.block, SPARSEST, []) == [k / 10 for k in range(10)]


@pytest.mark.parametrize(
    "block, sparsest, jitter",
    [("8x1", 0.8, 0.1), ("8x1", 0.85, 0.2), ("2:4", 0.5, 0.05), ("1:8", 0.875, 0.1)],
)
def test_the_masks_of_a_search_are_those_of_the_training(block, sparsest, jitter):
    """Of each window, and no others; a budget's sparsity that was not trained is in none."""
    options = WeightPruningOptions(
        method="supernet", block=block, supernet=SupernetOptions(jitter=jitter)
    )
    group = parse_block(block).group
    [levels] = drop_levels([torch.rand(80, generator=torch.Generator().manual_seed(0))], group)

    def masks(found):
        return {frozenset(tuple(kept(levels, one).tolist()) for one in window) for window in found}

    choices = choices_of(parse_block(block), sparsest, [0.432])
    found = windows_of(options, sparsest, choices)
    assert masks(found) == masks(windows(options.supernet, sparsest))
    assert len(found) == len(masks(found)) and 0.432 in choices
    assert not any(0.432 in window for window in found)
    assert windows_of(WeightPruningOptions(), sparsest, choices) == []
