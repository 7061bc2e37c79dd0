"""What streaming encoders keep of the past, and which places of it attention may see."""

import torch
import torch.nn.functional as F
from torch import Tensor

# keys and values (B, layers, left context, D), inputs of the convolutions
# (B, layers, kernel_size - 1, D), and encoder frames done (B,) int64
State = tuple[Tensor, Tensor, Tensor, Tensor]


def no_past(
    batch_size: int,
    num_layers: int,
    left_context: int,
    history: int,
    dim: int,
    device: torch.device,
    dtype: torch.dtype,
) -> State:
    """The state before the first chunk: zeros; ``history`` is that of the convolutions."""
    keys, values, inputs = (
        torch.zeros(batch_size, num_layers, size, dim, device=device, dtype=dtype)
        for size in (left_context, left_context, history)
    )
    return keys, values, inputs, torch.zeros(batch_size, device=device, dtype=torch.int64)


def visible_past(done: Tensor, left_context: int, size: int) -> Tensor:
    """What ``size`` frames of a chunk see, (B, 1, 1, left_context + size) bool.

    All of the chunk, and the kept places that the ``done`` (B,) frames before it have filled.
    """
    age = torch.arange(left_context, 0, -1, device=done.device)
    return F.pad(age <= done[:, None], (0, size), value=True)[:, None, None]
