"""Pack booleans as bits: eight to a byte, the first in the lowest bit, on their own device."""

import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """Return (n,) bool as (ceil(n / 8),) uint8; the bits beyond the end are 0."""
    padded = torch.nn.functional.pad(values, (0, -len(values) % 8)).view(-1, 8)
    packed = torch.zeros(len(padded), dtype=torch.uint8, device=values.device)
    for place in range(8):
        packed |= padded[:, place].to(torch.uint8) << place
    return packed


def packed_size(count: int) -> int:
    """Return the number of bytes that ``count`` booleans take."""
    return -(-count // 8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Return the first ``count`` booleans that :func:`pack_bits` packed."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> places) & 1).view(-1)[:count].bool()
