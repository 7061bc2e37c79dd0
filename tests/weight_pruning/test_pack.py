"""Packed sub-networks: every bit of the masked weights goes round, in as many bytes as said."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from asrprune.errors import UserError
from asrprune.weight_pruning.bits import pack_bits, unpack_bits
from asrprune.weight_pruning.packing import pack, packed_bytes, read_packed, unpack, write_packed
from tests.weight_pruning.bank_cases import TOKENS, Odd, bank_of, bits, cnn, same_bits

SPARSITIES = st.sampled_from([0.0, 0.004, 0.3, 0.5, 0.7, 0.96, 0.996, 1.0])


def masked_state(bank, module, choice) -> dict:
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for name, mask in bank.masks(choice).items():
            twin.get_parameter(name)[~mask] = 0
    return twin.state_dict()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.booleans(), max_size=70))
def test_bits_as_numpy_packs_them(values):
    array = np.array(values, bool)
    packed = pack_bits(torch.from_numpy(array))
    assert np.array_equal(packed.numpy(), np.packbits(array, bitorder="little"))
    assert unpack_bits(packed, len(values)).tolist() == values


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["8x1", "1x1", "4x4", "5x3", "1x4"]), SPARSITIES, st.booleans())
def test_goes_round_in_as_many_bytes_as_said(block, sparsity, odd):
    module = Odd() if odd else cnn()
    bank = bank_of(module, block)
    with torch.no_grad():  # bits that a sum or a product would lose
        next(iter(bank.parameters().values())).view(-1)[:3] = torch.tensor([-0.0, 1e-42, -1e-45])
    packed = pack(module.state_dict(), bank, sparsity)
    assert same_bits(unpack(packed), masked_state(bank, module, sparsity))
    assert packed_bytes(packed) == bank.sizes(sparsity).float32_bytes
    if bank.density(sparsity) == 1:  # 0, or so little that no block of these few goes
        assert not packed["layers"]
    elif sparsity >= 0.5:
        assert packed["layers"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("block", ["2:4", "8x1"])
def test_through_a_file(tmp_path, block, dtype):
    module = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 128)).to(dtype)
    bank = bank_of(module, block)
    bank.name("de", 0.5)
    packed = pack(module.state_dict(), bank, "de")
    write_packed(packed, tmp_path / "de.pt")
    again = read_packed(tmp_path / "de.pt")
    assert same_bits(unpack(again), masked_state(bank, module, "de"))
    # headers aside, the file holds the tensors
    assert 0 <= (tmp_path / "de.pt").stat().st_size - packed_bytes(packed) < 8000
    assert packed_bytes(again) == packed_bytes(packed)


def test_unpacked_weights_compute_as_the_sub_network(tmp_path):
    module = Odd().eval()
    bank = bank_of(module)
    with bank.apply(0.7):
        expected = module(TOKENS)
    write_packed(pack(module.state_dict(), bank, 0.7), tmp_path / "a" / "packed.pt")
    other = Odd(seed=9).eval()
    other.load_state_dict(unpack(read_packed(tmp_path / "a" / "packed.pt")), strict=True)
    assert torch.equal(other(TOKENS), expected)


def test_numbers_or_bits_whichever_is_smaller():
    module = nn.Linear(64, 64)
    bank = bank_of(module)  # 512 blocks: 64 bytes of bits, or 4 bytes a kept block
    for sparsity, dtype in ((0.5, torch.uint8), (0.964, torch.uint8), (0.972, torch.int32)):
        layer = pack(module.state_dict(), bank, sparsity)["layers"]["weight"]
        assert layer["index"].dtype == dtype and layer["index"].nbytes <= 64
        assert layer["values"].shape == (round(512 * (1 - sparsity)), 8)


def test_an_average_of_checkpoints_is_masked():
    module = cnn()
    bank = bank_of(module)
    average = {
        name: (entry + cnn(seed=1).state_dict()[name]) / 2
        for name, entry in module.state_dict().items()
    }
    unpacked = unpack(pack(average, bank, 0.5))
    for name, mask in bank.masks(0.5).items():
        assert torch.equal(unpacked[name], torch.where(mask, average[name], 0))


def test_memory_shared_with_other_tensors_is_left_behind(tmp_path):
    """Such as the buffer in which cuDNN keeps all weights of an LSTM."""
    module = nn.Linear(64, 64)
    bank = bank_of(module)
    large = torch.randn(100_000)
    state = {"weight": large[:4096].view(64, 64), "bias": large[5000:5064]}
    packed = pack(state, bank, 0.5)
    write_packed(packed, tmp_path / "packed.pt")
    assert (tmp_path / "packed.pt").stat().st_size < 4096 * 2 + 6000
    assert bits(unpack(packed)["bias"]) == bits(state["bias"])
    state["bias"] += 1
    assert bits(unpack(packed)["bias"]) != bits(state["bias"])  # nor does it change later


def test_weights_of_another_model():
    bank = bank_of(cnn())
    state = cnn().state_dict()
    with pytest.raises(UserError, match=r"2\.weight is \(16, 8, 1, 1\) there and \(16, 4, 1, 1\)"):
        pack({**state, "2.weight": torch.zeros(16, 4, 1, 1)}, bank, 0.5)
    del state["2.weight"]
    with pytest.raises(UserError, match=r"the weights given have no 2\.weight"):
        pack(state, bank, 0.5)


def test_what_is_no_packed_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_packed(tmp_path / "none.pt")
    module = cnn()
    torch.save(module.state_dict(), tmp_path / "dense.pt")
    with pytest.raises(UserError, match="is no packed sub-network"):
        read_packed(tmp_path / "dense.pt")
    write_packed(pack(module.state_dict(), bank_of(module), 0.5), tmp_path / "packed.pt")
    whole = (tmp_path / "packed.pt").read_bytes()
    for part in (b"", b"no zip", whole[: len(whole) // 2]):
        (tmp_path / "packed.pt").write_bytes(part)
        with pytest.raises(UserError, match="is damaged"):
            read_packed(tmp_path / "packed.pt")
