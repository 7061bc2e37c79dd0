"""Attention that is written out, for networks that are exported."""

import torch
from torch import Tensor


def plain_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attend as `torch.nn.functional.scaled_dot_product_attention` does, in four steps.

    What an exporter makes of that function looks for scores that are no numbers, and replaces them,
    in each layer: for queries that see nothing. Here each query has to see something.

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
    """Return what is added to scores: 0 where ``visible``, of any shape, is True, else -inf."""
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, -torch.inf)
