"""What streaming encoders keep of the past, and how a chunk attends to it.

The encoders compute a chunk in `ChunkEncoder.chunk`, which takes the past of each layer by itself,
with the heads apart. `forward_chunk` fits this to a state with the batch in front. An export fits
it to the state of sherpa-onnx, without copies between the two.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asrprune.transducer.attention import plain_attention
from asrprune.transducer.rotary import rotate_heads

# keys and values (B, layers, left context, H head_dim), inputs of the convolutions
# (B, layers, kernel_size - 1, D), and encoder frames done (B,) int64
State = tuple[Tensor, Tensor, Tensor, Tensor]


def no_past(
    batch_size: int,
    num_layers: int,
    left_context: int,
    history: int,
    width: int,
    dim: int,
    device: torch.device,
    dtype: torch.dtype,
) -> State:
    """The state before the first chunk: zeros.

    ``history`` is that of the convolutions, ``width`` that of all heads, ``dim`` that of a layer.
    """
    keys, values, inputs = (
        torch.zeros(batch_size, num_layers, *size, device=device, dtype=dtype)
        for size in ((left_context, width), (left_context, width), (history, dim))
    )
    return keys, values, inputs, torch.zeros(batch_size, device=device, dtype=torch.int64)


def visible_past(done: Tensor, left_context: int, size: int) -> Tensor:
    """What ``size`` frames of a chunk see, (B, 1, 1, left_context + size) bool.

    All of the chunk, and the kept places that the ``done`` (B,) frames before it have filled.
    """
    age = torch.arange(left_context, 0, -1, device=done.device)
    return F.pad(age <= done[:, None], (0, size), value=True)[:, None, None]


class Past(NamedTuple):
    """What each layer keeps: H heads of L frames, and the inputs of its convolution."""

    keys: Sequence[Tensor]  # of each layer (B, H, L, head_dim)
    values: Sequence[Tensor]  # of each layer (B, H, L, head_dim)
    history: Sequence[Tensor]  # of each layer (B, kernel_size - 1, D)


class ChunkEncoder(Protocol):
    """A streaming encoder whose layers attend to a past of the same size."""

    output_dim: int  # D
    head_dim: int
    subsampling: int
    chunk_frames: int
    left_context: int  # L
    history: int  # kernel_size - 1; 0 without convolutions

    @property
    def attention_width(self) -> int:
        """H head_dim, of the heads that are not cut out."""

    def chunk(self, x: Tensor, past: Past, done: Tensor) -> tuple[Tensor, Past]:
        """Compute a chunk ``x`` after ``done`` (B,) encoder frames -> (B, T, D), past.

        In the past that is returned, the frames of the chunk and its right context stand behind
        those that were given. `newest` takes what the next chunk needs.
        """


def newest(encoder: ChunkEncoder, frames: Tensor, kept: int) -> Tensor:
    """The ``kept`` frames before the end of the chunk, of ``frames`` (..., kept + chunk + n, D)."""
    size = encoder.chunk_frames // encoder.subsampling
    return frames[..., size : size + kept, :]


def forward_chunk(encoder: ChunkEncoder, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Compute a chunk, with the past in a state: see `asrprune.transducer.encoder`."""
    keys, values, history, done = state
    past_keys, past_values = [
        part.unflatten(-1, (-1, encoder.head_dim)).transpose(2, 3).unbind(1)
        for part in (keys, values)
    ]
    h, past = encoder.chunk(x, Past(past_keys, past_values, history.unbind(1)), done)
    keys, values = (
        newest(encoder, torch.stack(tuple(part), 1), encoder.left_context)
        .transpose(2, 3)
        .flatten(3)
        for part in (past.keys, past.values)
    )
    if encoder.history:
        history = newest(encoder, torch.stack(tuple(past.history), 1), encoder.history)
    return h, (keys, values, history, done + encoder.chunk_frames // encoder.subsampling)


def attend_to_past(
    heads: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor,
    rotation: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to the past and to the chunk.

    Queries and keys are turned together: a graph of few steps is what a short chunk needs most.

    Args:
        heads: queries, keys and values of the chunk (B, 3 H, T, head_dim).
        keys: those of the past (B, H, L, head_dim), turned by their positions.
        values: those of the past (B, H, L, head_dim).
        bias: of `visible_past`, from `asrprune.transducer.attention.score_bias`.
        rotation: from `asrprune.transducer.rotary.rotary_heads`; None: no positions.

    Returns:
        What was attended to (B, T, H head_dim), and keys and values with those of the chunk at
        their ends.
    """
    count = keys.size(1)
    turned, v = heads.split((2 * count, count), dim=1)
    if rotation:
        turned = rotate_heads(turned, *rotation)
    q, k = turned.split(count, dim=1)
    keys, values = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
    attended = plain_attention(q, keys, values, bias)
    return attended.transpose(1, 2).flatten(2), keys, values
