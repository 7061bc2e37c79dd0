"""Named masks that are made anew: as dense as asked, and together not denser than allowed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from asrprune.errors import UserError
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.blocks import Block
from asrprune.weight_pruning.pathways import narrow, pathway_of, renew
from asrprune.weight_pruning.prunable import find_layers

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
