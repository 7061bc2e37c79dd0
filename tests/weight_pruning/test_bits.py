"""Booleans as bits, against numpy."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.weight_pruning.masks.bits import pack_bits, unpack_bits


@settings(deadline=None, max_examples=200)
@given(st.lists(st.booleans(), max_size=70))
def test_bits_as_numpy_packs_them(values):
    array = np.array(values, bool)
    packed = pack_bits(torch.from_numpy(array))
    assert np.array_equal(packed.numpy(), np.packbits(array, bitorder="little"))
    assert unpack_bits(packed, len(values)).tolist() == values
