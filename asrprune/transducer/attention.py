"""Compute attention in explicit steps, for networks that are exported."""

import torch
from torch import Tensor


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend as `torch.nn.functional.scaled_dot_product_attention` does, in four explicit steps.

    Exporters translate the torch function into a graph that searches each layer for NaN scores and
    replaces them. Such scores come from queries that see no key. Here each query must see at least
    one key.

    Args:
        q: queries (B, H, T, D).
        k: keys (B, H, S, D).
        v: values (B, H, S, D).
        bias: from `score_bias`, broadcast to (B, H, T, S).

    Returns:
        (B, H, T, D).
    """
    scores = q @ k.transpose(2, 3) * q.size(-1) ** -0.5 + bias
    return scores.softmax(-1) @ v


def score_bias(visible: Tensor) -> Tensor:
    """Return a bias for attention scores: 0 where ``visible`` (any shape) is True, else -inf."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)
