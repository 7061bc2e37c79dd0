"""The state of a sub-network: exact zeros where weights are masked, and every bit of the others."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.masked_weights import masked_state
from tests.weight_pruning.bank_cases import TOKENS, Odd, bank_of, cnn, same_bits

SPARSITIES = st.sampled_from([0.0, 0.004, 0.3, 0.5, 0.7, 0.96, 0.996, 1.0])


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["8x1", "1x1", "4x4", "5x3", "1x4"]), SPARSITIES, st.booleans())
def test_masked_weights_are_zeros_and_others_keep_every_bit(block, sparsity, odd):
    module = Odd() if odd else cnn()
    bank = bank_of(module, block)
    with torch.no_grad():  # bits that a sum or a product would lose
        next(iter(bank.parameters().values())).view(-1)[:3] = torch.tensor([-0.0, 1e-42, -1e-45])
    before = {name: value.clone() for name, value in module.state_dict().items()}
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for name, mask in bank.masks(sparsity).items():
            twin.get_parameter(name)[~mask] = 0
    assert same_bits(masked_state(module.state_dict(), bank, sparsity), twin.state_dict())
    assert same_bits(module.state_dict(), before)


def test_it_computes_as_the_sub_network():
    module = Odd().eval()
    bank = bank_of(module)
    with bank.apply(0.7):
        expected = module(TOKENS)
    other = Odd(seed=9).eval()
    other.load_state_dict(masked_state(module.state_dict(), bank, 0.7), strict=True)
    assert torch.equal(other(TOKENS), expected)


def test_names_of_one_parameter_share_a_tensor():
    module = Odd()
    bank = bank_of(module)
    found = masked_state(module.state_dict(), bank, 0.5)
    assert bank.tied()
    for name, first in bank.tied().items():
        assert found[name].data_ptr() == found[first].data_ptr()


def test_an_average_of_checkpoints_is_masked():
    module = cnn()
    bank = bank_of(module)
    average = {
        name: (entry + cnn(seed=1).state_dict()[name]) / 2
        for name, entry in module.state_dict().items()
    }
    found = masked_state(average, bank, 0.5)
    for name, mask in bank.masks(0.5).items():
        assert torch.equal(found[name], torch.where(mask, average[name], 0))


def test_weights_of_another_model():
    bank = bank_of(cnn())
    state = cnn().state_dict()
    with pytest.raises(UserError, match=r"2\.weight is \(16, 8, 1, 1\) there and \(16, 4, 1, 1\)"):
        masked_state({**state, "2.weight": torch.zeros(16, 4, 1, 1)}, bank, 0.5)
    del state["2.weight"]
    with pytest.raises(UserError, match=r"the weights given have no 2\.weight"):
        masked_state(state, bank, 0.5)
