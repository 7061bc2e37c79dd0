"""Keep the past of streaming encoders, and attend from a chunk to the past.

The encoders compute a chunk in `ChunkEncoder.chunk`. This method takes the past of each layer
separately, with separate heads. `forward_chunk` adapts this method to a state with the batch in
dimension 0. An export adapts the method to the state of sherpa-onnx, without copies between the
two.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from asrprune.transducer.attention import plain_attention
from asrprune.transducer.rotary import rotate_heads

# keys and values (B, layers, left context, H head_dim), past inputs of the convolutions
# (B, layers, kernel_size - 1, D), and number of encoder frames done (B,) int64
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
    """Return the state before the first chunk: zeros.

    Args:
        batch_size: number of utterances.
        num_layers: number of layers.
        left_context: past frames that attention sees.
        history: past frames that a convolution sees.
        width: width of all heads together.
        dim: width of a layer.
        device: the device of the state.
        dtype: the type of the state, except the number of frames.
    """
    keys, values, inputs = (
        torch.zeros(batch_size, num_layers, *size, device=device, dtype=dtype)
        for size in ((left_context, width), (left_context, width), (history, dim))
    )
    return keys, values, inputs, torch.zeros(batch_size, device=device, dtype=torch.int64)


def visible_past(done: Tensor, left_context: int, size: int) -> Tensor:
    """Return the frames that a chunk of ``size`` frames sees, (B, 1, 1, left_context + size) bool.

    A chunk sees all its own frames, and the positions of the past that the previous ``done`` (B,)
    frames have filled.
    """
    age = torch.arange(left_context, 0, -1, device=done.device)
    return F.pad(age <= done[:, None], (0, size), value=True)[:, None, None]


class Past(NamedTuple):
    """Hold the past of each layer: H heads of L frames, and the past inputs of its convolution."""

    keys: Sequence[Tensor]  # for each layer (B, H, L, head_dim)
    values: Sequence[Tensor]  # for each layer (B, H, L, head_dim)
    history: Sequence[Tensor]  # for each layer (B, kernel_size - 1, D)


class ChunkEncoder(Protocol):
    """Encode streams with layers that attend to a past of the same size."""

    output_dim: int  # D
    head_dim: int
    subsampling: int
    chunk_frames: int
    left_context: int  # L
    history: int  # kernel_size - 1; 0 without convolutions

    @property
    def attention_width(self) -> int:
        """Return H head_dim, of the heads that are not cut out."""

    def chunk(self, x: Tensor, past: Past, done: Tensor) -> tuple[Tensor, Past]:
        """Encode a chunk.

        In the returned past, the frames of the chunk and of its right context follow the frames of
        the given past. `newest` selects the frames for the next chunk.

        Args:
            x: features of the chunk and its look-ahead.
            past: the past of each layer.
            done: (B,) encoder frames before the chunk.

        Returns:
            Outputs (B, T, D) and the extended past.
        """


def newest(encoder: ChunkEncoder, frames: Tensor, kept: int) -> Tensor:
    """Return the last ``kept`` frames up to the end of the chunk, of (..., kept + chunk + n, D)."""
    size = encoder.chunk_frames // encoder.subsampling
    return frames[..., size : size + kept, :]


def forward_chunk(encoder: ChunkEncoder, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Encode a chunk with the past in a state, see `asrprune.transducer.encoder`."""
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

    Queries and keys are rotated together. This makes the graph small, which matters most for the
    speed of short chunks.

    Args:
        heads: queries, keys and values of the chunk (B, 3 H, T, head_dim).
        keys: keys of the past (B, H, L, head_dim), rotated by their positions.
        values: values of the past (B, H, L, head_dim).
        bias: `score_bias` (`asrprune.transducer.attention`) of `visible_past`.
        rotation: from `asrprune.transducer.rotary.rotary_heads`; None: no positions.

    Returns:
        The result of attention (B, T, H head_dim), and the keys and values, each followed by those
        of the chunk.
    """
    count = keys.size(1)
    turned, v = heads.split((2 * count, count), dim=1)
    if rotation:
        turned = rotate_heads(turned, *rotation)
    q, k = turned.split(count, dim=1)
    keys, values = torch.cat((keys, k), dim=2), torch.cat((values, v), dim=2)
    attended = plain_attention(q, keys, values, bias)
    return attended.transpose(1, 2).flatten(2), keys, values
