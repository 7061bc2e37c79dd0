"""Named masks that are made anew: as dense as asked, and together not denser than allowed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.blocks import Block
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import parse_block
from asrprune.weight_pruning.pathways import (
    narrow,
    pathway_of,
    ranks_from_mask,
    renew,
    share_at,
)

BLOCK = Block(2, 1)


def bank_of(module):
    return MaskBank(module, find_layers(module, BLOCK, ["*"], []))


def shuffle(module, seed):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(seed))


@given(
    st.lists(st.sampled_from([0.2, 0.5, 0.7, 0.8, 0.9]), min_size=2, max_size=8),
    st.floats(0.2, 1.0),
)
def test_each_is_as_dense_as_asked_and_all_are_not_too_dense(sparsities, most):
    """Whatever the weights become between."""
    module = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 16))
    bank = bank_of(module)
    for turn, sparsity in enumerate(sparsities):
        shuffle(module, turn)
        bank.refresh()
        name = "abc"[turn % 3]
        others = [other for other in bank.names if other != name]
        before = bank.union(*others) if others else {}
        renew(bank, name, sparsity, most)
        for layer, wanted in bank.blocks(sparsity).items():
            blocks, count = bank.blocks(name)[layer], int(wanted.sum())
            assert blocks.sum() == count
            union = int((blocks | before[layer]).sum()) if others else count
            limit = max(int(most * len(blocks)), count)
            assert union <= max(limit, int(before[layer].sum()) if others else 0)
            if union < limit:  # nothing was held back
                assert blocks.equal(wanted)


def test_blocks_that_others_keep_come_in_for_those_that_wait():
    layer = nn.Linear(4, 2, bias=False)
    bank = bank_of(layer)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    bank.refresh()
    assert renew(bank, "a", 0.5, 0.75) == 1.0
    assert bank.blocks("a")["weight"].tolist() == [True, True, False, False]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    bank.refresh()
    renew(bank, "b", 0.5, 0.75)  # one of its own, and the best one of the other's
    assert bank.blocks("b")["weight"].tolist() == [False, True, False, True]
    assert bank.density(bank.union("a", "b")) == 0.75
    renew(bank, "b", 0.5, 1.0)
    assert bank.blocks("b")["weight"].tolist() == [False, False, True, True]


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 99))
def test_a_share_of_a_new_mask_is_unclaimed(share, density, sparsity, seed):
    """By brute force: the best unclaimed blocks of the share, then the best of all others."""
    module = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 16))
    shuffle(module, seed)
    bank = bank_of(module)
    random = torch.Generator().manual_seed(seed)
    claimed = {
        name: torch.rand(kept.shape, generator=random) < density
        for name, kept in bank.blocks(0.0).items()
    }
    bank.name("other", claimed)
    renew(bank, "new", sparsity, protected=["other"], unclaimed=share)
    levels = bank.levels()
    for layer, wanted in bank.blocks(sparsity).items():
        count, level = int(wanted.sum()), levels[layer].tolist()
        ranked = sorted(range(len(level)), key=lambda block: -level[block])
        free = [block for block in ranked if not claimed[layer][block]]
        first = free[: math.ceil(share * count)]
        best = [block for block in ranked if block not in first]
        expected = {*first, *best[: count - len(first)]}
        found = bank.blocks("new")[layer]
        assert {block for block in range(len(level)) if found[block]} == expected


def test_how_much_it_has_changed():
    layer = nn.Linear(4, 2, bias=False)
    bank = bank_of(layer)
    renew(bank, "a", 0.5)
    assert renew(bank, "a", 0.5) == 0.0
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    bank.refresh()
    renew(bank, "a", 0.5)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([4.0, 1.0, 2.0, 3.0]))
    bank.refresh()
    assert renew(bank, "a", 0.5) == pytest.approx(2 / 3)


def test_a_language_without_a_pathway():
    assert pathway_of(["en", "fr"], "fr") == "fr"
    with pytest.raises(UserError, match="no pathway for language 'fe'.*'fr'.* there are: en, fr"):
        pathway_of(["en", "fr"], "fe")


@given(st.lists(st.sampled_from([0.3, 0.5, 0.7, 0.8]), min_size=1, max_size=4, unique=True))
def test_pruned_again_and_again(sparsities):
    """Each time the largest of what was left, by the weights of that time; by brute force."""
    module = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 16))
    bank = bank_of(module)
    bank.name("a", 0.0)
    left = {layer: set(range(len(kept))) for layer, kept in bank.blocks("a").items()}
    for turn, sparsity in enumerate(sorted(sparsities)):
        shuffle(module, turn)
        narrow(bank, "a", sparsity)
        for layer, parameter in bank.parameters().items():
            weights = parameter.detach().double().reshape(-1, 2, parameter.shape[1])
            scores = weights.square().sum(1).flatten().tolist()
            best = sorted(left[layer], key=lambda block: -scores[block])
            left[layer] = set(best[: round((1 - sparsity) * len(scores))])
            assert set(bank.blocks("a")[layer].nonzero().flatten().tolist()) == left[layer]


def test_pruning_brings_nothing_back():
    bank = bank_of(nn.Linear(4, 4))
    bank.name("a", 0.75)
    with pytest.raises(UserError, match="'a' keeps 2 blocks of weight, fewer than at sparsity 0.5"):
        narrow(bank, "a", 0.5)
    assert bank.density("a") == 0.25


def random_gradients(bank, seed, zeros=0.0):
    """For each group mean squares of gradients, a share of them 0."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for group in bank.groups:
        squares = torch.rand(group.units, generator=generator)
        squares[torch.rand(group.units, generator=generator) < zeros] = 0
        found[group.name] = squares
    return found


def regrow(bank, name, sparsity, share, gradients):
    bank.refresh(scores=ranks_from_mask(bank, name, sparsity, share, gradients))
    return renew(bank, name, sparsity)


@given(
    st.sampled_from([0.3, 0.5, 0.8]),
    st.sampled_from([0.3, 0.5, 0.7, 0.9]),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_a_mask_that_is_made_from_itself(before, after, share, zeros, seed):
    """The largest of its own, and as many of the largest gradients outside; by brute force."""
    module = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 16))
    shuffle(module, seed)
    bank = bank_of(module)
    bank.name("a", before)
    shuffle(module, seed + 1)
    gradients = random_gradients(bank, seed, zeros)
    own = {layer: kept.tolist() for layer, kept in bank.blocks("a").items()}
    regrow(bank, "a", after, share, gradients)
    for layer, parameter in bank.parameters().items():
        weights = parameter.detach().double().reshape(-1, 2, parameter.shape[1])
        weights = weights.square().sum(1).flatten().tolist()
        felt, inside = gradients[layer].tolist(), own[layer]
        count = round((1 - after) * len(weights))
        mine = sorted(
            (unit for unit in range(len(weights)) if inside[unit]), key=lambda unit: -weights[unit]
        )
        others = sorted(
            (unit for unit in range(len(weights)) if not inside[unit]),
            key=lambda unit: (-felt[unit], -weights[unit]),
        )
        exchanged = min(round(share * count), sum(felt[unit] > 0 for unit in others))
        stay = min(len(mine), count - exchanged)
        wanted = {*mine[:stay], *others[: count - stay]}
        assert set(bank.blocks("a")[layer].nonzero().flatten().tolist()) == wanted


def test_equal_masks_part_by_their_gradients_alone():
    bank = bank_of(nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 48)))
    for name in "abc":
        bank.name(name, 0.5)
    gradients = random_gradients(bank, 0)
    for name in "ab":
        regrow(bank, name, 0.6, 0.1, gradients)
    regrow(bank, "c", 0.6, 0.1, random_gradients(bank, 1))
    assert bank.overlap("a", "b") == 1
    # 90 % of the mask is shared; of the rest, some by chance
    assert 0.9 / 1.1 <= bank.overlap("a", "c") < 0.9
    for name in "abc":
        assert bank.density(name) == pytest.approx(0.4, abs=0.005)


@pytest.mark.parametrize("regrown", [True, False])
def test_masks_of_unrelated_languages_after_ten_renewals(regrown):
    """From one mask for all, as dense as scheduled; by magnitude they are one mask to the end."""
    module = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 48))
    bank = bank_of(module)
    names = ["en", "fr", "cy"]
    for name in names:
        bank.name(name, 0.5)
    for turn in range(10):
        sparsity = 0.5 + 0.02 * (turn + 1)
        share = share_at(turn / 10, 0.1, 1.0)
        for number, name in enumerate(names):
            with torch.no_grad():  # a language's steps move the weights of its mask
                for layer, kept in bank.masks(name).items():
                    weight = bank.parameters()[layer]
                    generator = torch.Generator().manual_seed(10 * turn + number)
                    weight += 0.1 * torch.randn(weight.shape, generator=generator) * kept
            if regrown:
                regrow(bank, name, sparsity, share, random_gradients(bank, 10 * turn + number))
            else:
                bank.refresh()
                renew(bank, name, sparsity)
            assert bank.density(name) == pytest.approx(1 - sparsity, abs=0.005)
    overlaps = [bank.overlap(*pair) for pair in (("en", "fr"), ("fr", "cy"), ("en", "cy"))]
    assert max(overlaps) < 0.7 if regrown else min(overlaps) > 0.9


def test_the_share_that_is_exchanged_falls_to_none():
    shares = [share_at(progress / 10, 0.1, 0.8) for progress in range(11)]
    assert shares[0] == 0.1 and shares[4] == pytest.approx(0.05) and shares[8:] == [0, 0, 0]
    assert shares == sorted(shares, reverse=True)
    assert share_at(0.0, 0.1, 0.0) == 0


def test_no_mask_is_made_from_weights_that_are_no_numbers():
    module = nn.Linear(4, 4)
    bank = bank_of(module)
    bank.name("a", 0.5)
    with torch.no_grad():
        module.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match="cannot rank the weights of weight: some are NaN"):
        ranks_from_mask(bank, "a", 0.5, 0.1, {})
    patterns = MaskBank(
        nn.Linear(8, 4), find_layers(nn.Linear(8, 4), parse_block("2:4"), ["*"], [])
    )
    patterns.name("a", 0.5)
    with pytest.raises(UserError, match="no N:M"):
        ranks_from_mask(patterns, "a", 0.5, 0.1, {})
