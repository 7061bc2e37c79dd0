"""Laws of the mask bank: which blocks a choice keeps, names, sets of masks, sizes, state."""

import copy
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.blocks import block_sizes
from tests.weight_pruning.bank_cases import Odd, bank_of, cnn, entry_masks, same_bits

BLOCKS = st.sampled_from(["8x1", "1x1", "4x4", "1x4", "3x2"])
LEVELS = st.integers(0, 250)
law = settings(deadline=None, max_examples=15)


def scramble(module: nn.Module, seed: int) -> nn.Module:
    """Other weights, as training gives."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@law
@given(BLOCKS, LEVELS, st.integers(0, 99))
def test_masks_as_by_loops_over_blocks(block, level, seed):
    module = scramble(Odd(), seed)
    bank = bank_of(module, block)
    masks = bank.masks(level / 250)
    for name, expected in entry_masks(bank, level).items():
        assert masks[name].shape == module.get_parameter(name).shape
        assert np.array_equal(masks[name].reshape(expected.shape).numpy(), expected), name


@law
@given(BLOCKS, st.sampled_from(["layer", "global"]), st.lists(LEVELS, min_size=2, max_size=5))
def test_nested_and_dense_to_a_block(block, scope, levels):
    bank = bank_of(Odd(), block, scope=scope)
    wider = None
    for level in sorted(levels):
        kept = bank.blocks(level / 250)
        for name in kept:
            assert wider is None or not (kept[name] & ~wider[name]).any()
            if scope == "layer":
                assert abs(kept[name].sum() - (1 - level / 250) * len(kept[name])) <= 0.5 + 1e-6
        total = sum(map(len, kept.values()))
        share = sum(int(some.sum()) for some in kept.values()) / total
        slack = 0.5 * (1 if scope == "global" else len(kept)) / total
        assert abs(share - (1 - level / 250)) <= slack + 1e-9
        wider = kept
    assert bank.density(0) == 1 and bank.density(1) == 0 and bank.density(1.0) == 0


def test_two_of_four():
    bank = bank_of(nn.Linear(16, 6), "2:4")
    mask = bank.masks(bank.block.sparsity)["weight"]
    assert (mask.view(6, 4, 4).sum(-1) == 2).all()
    weights = bank.parameters()["weight"].detach().abs().view(6, 4, 4)
    kept = mask.view(6, 4, 4)
    assert (weights.masked_fill(~kept, 9).amin(-1) > weights.masked_fill(kept, 0).amax(-1)).all()


def test_masks_stand_still_until_the_next_refresh_and_weights_come_back():
    module = Odd()
    bank = bank_of(module)
    before, digest = bank.blocks(0.5), bank.digest()
    out = {name: ~kept for name, kept in before.items()}
    with torch.no_grad():  # what is masked grows
        for name, mask in bank.masks(out).items():
            module.get_parameter(name)[mask] += 10
    assert all(torch.equal(bank.blocks(0.5)[name], before[name]) for name in before)
    bank.refresh()
    assert bank.digest() != digest
    for name, kept in bank.blocks(0.5).items():
        assert kept[out[name]].sum() >= 0.99 * min(kept.sum(), out[name].sum())


def test_weights_that_cannot_be_ranked():
    module = Odd()
    bank = bank_of(module)
    digest = bank.digest()
    for wrong in (float("nan"), float("inf"), -float("inf")):
        with torch.no_grad():
            module.point.weight[3, 2] = wrong
        with pytest.raises(UserError, match=r"point\.weight.*NaN"):
            bank.refresh()
    assert bank.digest() == digest


def test_levels_of_layers_may_differ():
    bank = bank_of(Odd())
    sparsities = {layer.name: 0.1 * (index % 10) for index, layer in enumerate(bank.layers)}
    blocks = bank.blocks(sparsities)
    for name, sparsity in sparsities.items():
        assert torch.equal(blocks[name], bank.blocks(sparsity)[name])
    mixed = {**sparsities, "up.weight": blocks["point.weight"].new_ones(len(blocks["up.weight"]))}
    assert bank.blocks(mixed)["up.weight"].all()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (1.5, "1.5 is no sparsity"),
        (-0.1, "from 0 to 1"),
        (float("nan"), "nan is no sparsity"),
        (True, "True is no sparsity"),
        ("pm", r"no mask is named 'pm' \(did you mean 'pms'\?\); known: pms"),
        ({"up.weights": 0.5}, r"did you mean 'up.weight'"),
        ({"up.weight": 0.5}, "says nothing of 6 layers, such as attention.in_proj_weight"),
    ],
)
def test_what_is_no_choice(choice, message):
    bank = bank_of(Odd())
    bank.name("pms", 0.5)
    with pytest.raises(UserError, match=message):
        bank.blocks(choice)


def test_blocks_of_another_layer_are_no_choice():
    bank = bank_of(Odd())
    blocks = bank.blocks(0.5)
    for wrong in (blocks["up.weight"][:-1], blocks["up.weight"].float()):
        with pytest.raises(UserError, match="the kept blocks of up.weight"):
            bank.density({**blocks, "up.weight": wrong})


# named masks and sets of masks


@law
@given(BLOCKS, LEVELS, st.integers(0, 9))
def test_named_masks_keep_their_bits(block, level, seed):
    module = Odd()
    bank = bank_of(module, block)
    before = bank.blocks(level / 250)
    bank.name("de", level / 250)
    scramble(module, seed)
    bank.refresh()
    assert same_bits(bank.blocks("de"), before)
    bank.name("fr", "de")
    bank.name("de", bank.union("fr", 0.9))
    assert same_bits(bank.blocks("fr"), before) and bank.names == ["de", "fr"]
    bank.delete("de")
    assert bank.names == ["fr"]
    with pytest.raises(UserError, match="no mask is named 'de'"):
        bank.delete("de")
    bank.delete("fr")
    with pytest.raises(UserError, match="there are none yet"):
        bank.blocks("fr")


@law
@given(BLOCKS, LEVELS, LEVELS, LEVELS)
def test_union_overlap_and_density_entry_by_entry(block, a, b, c):
    module = Odd()
    bank = bank_of(module, block)
    bank.name("one", a / 250)
    scramble(module, 7)
    bank.refresh()
    bank.name("two", b / 250)
    entries = lambda choice: {  # noqa: E731
        (name, place) for name, mask in bank.masks(choice).items()
        for place in mask.flatten().nonzero().flatten().tolist()
    }  # fmt: skip
    one, two, three = entries("one"), entries("two"), entries(c / 250)
    everything = len(entries(0))
    assert entries(bank.union("one", "two", c / 250)) == one | two | three
    assert entries(bank.union("one")) == one
    assert bank.density("one") == pytest.approx(len(one) / everything)
    either = len(one | two)
    expected = len(one & two) / either if either else 1
    assert bank.overlap("one", "two") == pytest.approx(expected)
    assert bank.overlap("two", "one") == pytest.approx(expected)
    assert bank.overlap("one", "one") == 1


@law
@given(BLOCKS, LEVELS)
def test_kept_parameters_entry_by_entry(block, level):
    module = Odd()
    bank = bank_of(module, block)
    total = sum(parameter.numel() for parameter in module.parameters())
    dropped = sum(int((~mask).sum()) for mask in bank.masks(level / 250).values())
    assert bank.kept_parameters(level / 250) == total - dropped


def test_elements_of_edge_blocks():
    bank = bank_of(nn.Linear(10, 11), "4x3")
    sizes = block_sizes((11, 10), bank.block)
    for index, size in enumerate(sizes.tolist()):
        only = torch.zeros(len(sizes), dtype=torch.bool)
        only[index] = True
        assert bank.density({"weight": only}) == pytest.approx(size / 110)


# state


def stored(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_state_goes_round(scope):
    module = Odd()
    bank = bank_of(module, scope=scope)
    bank.name("de", 0.5)
    scramble(module, 3)
    bank.refresh()
    bank.name("fr", 0.7)
    state = bank.state_dict()
    copied = copy.deepcopy(state)

    other = bank_of(Odd(seed=5), scope=scope)
    other.name("gone", 0.1)
    assert other.digest() != bank.digest()
    other.load_state_dict(stored(state))
    assert other.digest() == bank.digest() and other.names == ["de", "fr"]
    for choice in ("de", "fr", 0.3):
        assert same_bits(other.blocks(choice), bank.blocks(choice))
    # neither loading nor going on changes what was loaded
    other.load_state_dict(state)
    other.refresh()
    other.delete("de")
    assert torch.equal(state["levels"], copied["levels"])
    assert same_bits(state["named"], copied["named"])


def test_equal_ranks_have_equal_digests():
    one, other = bank_of(Odd()), bank_of(Odd())
    one.name("de", 0.5), one.name("fr", 0.7)
    other.name("fr", 0.7), other.name("de", 0.5)
    assert one.digest() == other.digest()
    other.name("de", 0.7), other.name("fr", 0.5)
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: bank_of(Odd(), "4x1"), "of unit '8x1', and this model is pruned with '4x1'"),
        (lambda: bank_of(Odd(), criterion="l1"), "criterion 'mean_square'"),
        (lambda: bank_of(Odd(), scope="global"), "scope 'layer'"),
        (lambda: bank_of(Odd(), recurrent=False), "layer 4 is lstm.weight_ih_l0 of 24x20 there"),
        (lambda: bank_of(Odd(), exclude=["frozen.*"]), "7 is frozen.weight of 6x17 there and none"),
        (lambda: bank_of(cnn()), "layer 1 is attention.in_proj_weight of 36x12 there and 2.weight"),
    ],
)
def test_the_state_of_another_model(other, message):
    bank, other = bank_of(Odd()), other()
    digest = other.digest()
    with pytest.raises(UserError, match=message):
        other.load_state_dict(bank.state_dict())
    assert other.digest() == digest


def test_damaged_state_changes_nothing():
    bank = bank_of(nn.Linear(64, 64))
    bank.name("welsh", 0.5)
    digest, state = bank.digest(), bank.state_dict()
    for name in state:
        with pytest.raises(UserError, match=f"these are no saved masks: no '{name}' in them"):
            bank.load_state_dict({key: state[key] for key in state if key != name})
    cut = {**state, "levels": 1 - state["levels"], "named": {"welsh": state["named"]["welsh"][1:]}}
    with pytest.raises(UserError, match="damaged: mask 'welsh' of 63 bytes, not 64"):
        bank.load_state_dict(cut)
    with pytest.raises(UserError, match="damaged: levels of 500 bytes, not 512"):
        bank.load_state_dict({**state, "levels": state["levels"][:500]})
    assert bank.digest() == digest


def test_state_takes_a_byte_a_block_and_a_bit_a_block_and_name():
    bank = bank_of(nn.Linear(64, 64))
    for index in range(20):
        bank.name(f"language {index}", 0.05 * index)
    state = bank.state_dict()
    assert state["levels"].nbytes == 512
    assert [packed.nbytes for packed in state["named"].values()] == [64] * 20


def test_parameters_that_are_replaced_are_followed():
    module = cnn()
    bank = bank_of(module)
    module.load_state_dict(cnn(seed=3).state_dict(), assign=True)
    bank.refresh()
    assert bank.digest() == bank_of(cnn(seed=3)).digest()
    before = bank.masks(0.5)
    module.double()
    with bank.apply(0.5):
        assert module[2].weight.dtype == torch.float64
        assert torch.equal(module[2].weight != 0, before["2.weight"])


def test_tied_parameters_count_once():
    bank = bank_of(Odd())
    assert bank.tied() == {"again.weight": "up.weight"}
    assert "again.weight" not in bank.masks(0.5)
