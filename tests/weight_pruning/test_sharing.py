"""What masks share, counted entry by entry; what they would share by chance, over all drawings."""

from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.sharing import intersection, sharing
from tests.weight_pruning.bank_cases import Odd, bank_of

NAMES = ["a", "b", "c"]


def named(module, choices, **options):
    """A bank whose masks are of unlike weights; choices by name."""
    bank = bank_of(module, **options)
    for seed, (name, choice) in enumerate(choices.items()):
        with torch.no_grad():
            for parameter in bank.parameters().values():
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        bank.refresh()
        bank.name(name, choice)
    return bank


@given(
    st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=1, max_size=3),
    st.sampled_from(["8x1", "4x4", "1x3"]),
    st.sampled_from(["layer", "global"]),
)
def test_counts_are_those_of_entries(sparsities, block, scope):
    choices = dict(zip(NAMES, sparsities, strict=False))
    bank = named(Odd(), choices, block=block, scope=scope)
    found = sharing(bank, bank.names)
    layers = [layer.name for layer in bank.layers]
    masks = [[bank.masks(name)[layer].numpy() for layer in layers] for name in choices]
    flat = [np.concatenate([mask.ravel() for mask in of_one]) for of_one in masks]
    assert (found.names, found.layers) == (list(choices), layers)
    assert found.weights.tolist() == [mask.size for mask in masks[0]]
    assert found.kept.tolist() == [[int(mask.sum()) for mask in of_one] for of_one in masks]
    for index in range(len(layers)):
        of_all = [of_one[index] for of_one in masks]
        assert found.either[index] == np.logical_or.reduce(of_all).sum()
        assert found.common[index] == np.logical_and.reduce(of_all).sum()
    assert found.union == np.logical_or.reduce(flat).mean()
    assert found.shared == np.logical_and.reduce(flat).mean()
    shared = intersection(bank, bank.names)
    assert bank.density(shared) == found.shared
    for (row, one), (column, other) in product(enumerate(flat), repeat=2):
        either = int((one | other).sum())
        expected = int((one & other).sum()) / either if either else 1.0
        assert found.overlap[row, column] == expected
        assert expected == bank.overlap(NAMES[row], NAMES[column])
    assert found.equal_union <= found.union <= min(1.0, found.densities.sum() + 1e-12)
    assert found.shared <= found.densities.min()
    apart = 1.0
    for density in found.densities:
        apart *= 1 - density
    assert found.independent_union == pytest.approx(1 - apart, abs=1e-12)


def test_chance_is_the_mean_over_all_drawings():
    """Of the two masks over two layers that keep 2 and 1, and 3 and 2 of 4 and 3 blocks."""
    module = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(3, 2, bias=False))
    bank = bank_of(module, block="2x1")
    first, second = (layer.name for layer in bank.layers)

    def drawn(*counts):
        for kept in product(*(combinations(range(n), k) for n, k in zip((4, 3), counts))):  # noqa: B905
            places = [torch.zeros(n, dtype=torch.bool) for n in (4, 3)]
            for place, some in zip(places, kept, strict=True):
                place[list(some)] = True
            yield dict(zip((first, second), places, strict=True))

    both, either = [], []
    for one, other in product(drawn(2, 1), drawn(3, 2)):
        bank.name("a", one)
        bank.name("b", other)
        found = sharing(bank, ["a", "b"])
        both.append(found.pairs[0, 1])
        either.append(found.either.sum())
    assert len(both) == 6 * 3 * 4 * 3
    assert found.chance_overlap[0, 1] == pytest.approx(np.sum(both) / np.sum(either), abs=1e-12)
    assert found.chance_union == pytest.approx(np.mean(either) / 14, abs=1e-12)
    assert found.chance_shared == pytest.approx(np.mean(both) / 14, abs=1e-12)
    assert found.chance_overlap.diagonal().tolist() == [1.0, 1.0]


def test_masks_of_unlike_weights_share_what_chance_gives():
    """And equal ones share all that they keep."""
    module = nn.Linear(400, 320)
    bank = named(module, {"a": 0.7, "b": 0.7, "c": 0.7})
    found = sharing(bank, bank.names)
    assert found.equal_union == pytest.approx(1 - 0.7, abs=1e-9)
    assert found.independent_union == pytest.approx(1 - 0.7**3, abs=1e-9)
    assert found.union == pytest.approx(found.chance_union, abs=0.01)
    off = ~np.eye(3, dtype=bool)
    assert found.overlap[off] == pytest.approx(found.chance_overlap[off], abs=0.02)
    bank.name("b", "a"), bank.name("c", "a")
    same = sharing(bank, bank.names)
    assert same.union == same.shared == same.equal_union == bank.density("a")
    assert (same.overlap == 1).all() and same.chance_overlap[0, 1] < 0.2


def test_no_masks():
    bank = bank_of(nn.Linear(8, 8))
    with pytest.raises(UserError, match="no mask to measure"):
        sharing(bank, [])
    with pytest.raises(UserError, match="no mask is named 'a'"):
        sharing(bank, ["a"])
