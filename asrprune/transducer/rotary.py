"""Rotary positions (Su et al. 2021, RoFormer): attention that knows the distance of two frames."""

import torch
from torch import Tensor


def rotary_table(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (..., T, 1, 1, head_dim / 2), float32, for ``positions`` (..., T)."""
    half = torch.arange(head_dim // 2, device=positions.device, dtype=torch.float32)
    frequencies = 10000.0 ** (-half / (head_dim // 2))
    angles = positions.float()[..., None, None, None] * frequencies
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of ``x`` (B, T, 2, H, head_dim) by its position."""
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return turned.to(x.dtype)  # half precision stays half under autocast


def rotary_heads(positions: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (B, 1, T, head_dim) for `rotate_heads`, of ``positions`` (B, T)."""
    cos, sin = (part.flatten(2).unsqueeze(1) for part in rotary_table(positions, head_dim))
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` for ``x`` (B, H, T, head_dim), with half as many steps in an exported network."""
    first, second = x.chunk(2, dim=-1)
    turned = x * cos + torch.cat((second, first), dim=-1) * sin
    return turned.to(x.dtype)
