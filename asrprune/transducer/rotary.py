"""Rotate queries and keys by their positions (Su et al. 2021, RoFormer).

Attention then depends on the distance of two frames.
"""

import torch
from torch import Tensor


def rotary_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (..., T, 1, 1, head_dim / 2), float32, of ``positions`` (..., T)."""
    half = torch.arange(head_dim // 2, device=positions.device, dtype=torch.float32)
    frequencies = 10000.0 ** (-half / (head_dim // 2))
    angles = positions.float()[..., None, None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + head_dim / 2) of ``x`` (B, T, 2, H, head_dim) by its position."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)  # keep half precision under autocast


def rotary_heads(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines (B, 1, T, head_dim) of ``positions`` (B, T).

    They are arguments of `rotate_heads`.
    """
    cos, sin = (part.flatten(2).unsqueeze(1) for part in rotary_table(positions, head_dim))
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate ``x`` (B, H, T, head_dim) like `rotate`.

    An exported network needs half as many operations for this function as for `rotate`.
    """
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((second, first), dim=-1) * sin
    return turned.to(x.dtype)
