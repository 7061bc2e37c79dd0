"""Encode streams with a Conformer: chunks see themselves and a limited past.

The layers are those of `asrprune.transducer.conformer`. A frame attends to its chunk and to frames
before its chunk, as in other chunk-wise Conformers (Zhang et al. 2020, arXiv 2012.05481). The
depthwise convolution is causal. The outputs chunk by chunk equal the outputs for the whole
utterance.
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.transducer import convolution
from asrprune.transducer.attention import score_bias
from asrprune.transducer.conformer import Layer, channels_of, check_sizes, heads_of
from asrprune.transducer.encoder import Channels, Heads, Stack, checked_heads, zero_padding
from asrprune.transducer.rotary import rotary_heads, rotary_table
from asrprune.transducer.streaming import (
    Past,
    State,
    attend_to_past,
    forward_chunk,
    no_past,
    visible_past,
)
from asrprune.transducer.subsampling import StreamSubsampling


def streaming_conformer(
    num_features: int,
    *,
    dim: int = 256,
    num_layers: int = 12,
    num_heads: int = 4,
    ffn_dim: int | Sequence[int] = 1024,
    kernel_size: int = 15,
    chunk_length: int = 8,
    left_context_length: int = 64,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    subsampling_channels: Sequence[int] = (8, 32),
    head_dim: int | None = None,
) -> "StreamingConformer":
    """Return a Conformer encoder that receives an utterance chunk by chunk.

    Lengths are in encoder frames of 40 ms. By default, in each layer, a chunk of 320 ms sees itself
    and the 2.6 s before it. The latency of the model is a chunk plus 30 ms, the look-ahead of the
    subsampling.

    Args:
        num_features: number of mel bins.
        dim: width of the layers; without ``head_dim`` a multiple of ``2 * num_heads``.
        num_layers: number of layers.
        num_heads: number of attention heads of each layer.
        ffn_dim: inner width of the feed-forward modules; or a list with the widths of the first and
            the second module of each layer.
        kernel_size: frames that the depthwise convolution sees, up to the present frame, an odd
            number.
        chunk_length: frames of a chunk. All frames of a chunk see each other.
        left_context_length: frames before the chunk that attention sees.
        dropout: probability of dropout after each module and inside the feed-forward layers.
        attention_dropout: probability of dropout on attention weights. Above 0, the fast attention
            kernel of a CPU cannot be used in training.
        subsampling_channels: channels of the two subsampling convolutions.
        head_dim: width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: the sizes do not fit each other.
    """
    widths = check_sizes(dim, num_layers, num_heads, ffn_dim, kernel_size, subsampling_channels)
    heads = num_heads, checked_heads(dim, num_heads, head_dim)
    if chunk_length < 1 or left_context_length < 0:
        raise UserError("chunk_length: at least 1; left_context_length: at least 0")
    return StreamingConformer(
        StreamSubsampling(num_features, dim, subsampling_channels, dropout),
        nn.ModuleList(
            StreamingLayer(dim, pair, heads, kernel_size, dropout, attention_dropout)
            for pair in widths
        ),
        kernel_size - 1,
        chunk_length,
        left_context_length,
    )


class StreamingConformer(nn.Module):
    """Encode streams, see `streaming_conformer`.

    Implements `asrprune.transducer.encoder.StreamingEncoder`.
    """

    streaming = True
    layers: Sequence["StreamingLayer"]  # an nn.ModuleList

    def __init__(
        self,
        subsampling: StreamSubsampling,
        layers: nn.ModuleList,
        history: int,
        chunk_length: int,
        left_context_length: int,
    ):
        super().__init__()
        self.embed = subsampling
        self.layers = cast(Sequence[StreamingLayer], layers)
        self.norm = nn.LayerNorm(subsampling.out.out_features)
        self.output_dim = subsampling.out.out_features
        self.head_dim = self.layers[0].head_dim
        self.subsampling = subsampling.factor
        self.history = history  # past frames that a convolution sees
        self.chunk_length = chunk_length
        self.left_context = left_context_length
        self.chunk_frames = chunk_length * subsampling.factor
        self.lookahead_frames = subsampling.lookahead

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """Return ``ceil(x_lens / 4)``: at least 1 for an utterance with any frame."""
        return (x_lens + self.subsampling - 1) // self.subsampling

    @property
    def attention_width(self) -> int:
        """Return the width of all heads together, without the heads that are cut out."""
        return self.layers[0].self_attn.out_proj.weight.shape[1]

    def heads(self) -> Heads:
        """Return the attention heads."""
        return heads_of(self.layers)

    def stack(self) -> Stack:
        """Return the stack of layers, which can be shortened."""
        return Stack("layers", "num_layers")

    def channels(self) -> list[Channels]:
        """Return the inner channels of the feed-forward modules."""
        return channels_of(len(self.layers))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        The result equals `forward_chunk` over an utterance that zeros follow.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,).

        Returns:
            Outputs (B, ceil(T / 4), dim) and their lengths (B,).
        """
        lengths = self.output_lengths(x_lens)
        num_outputs = -(-x.size(1) // self.subsampling)
        num_chunks = -(-x.size(1) // self.chunk_frames)
        size = num_chunks * self.chunk_frames + self.lookahead_frames
        x = self.embed(F.pad(zero_padding(x, x_lens), (0, 0, 0, size - x.size(1))))
        frames = torch.arange(num_chunks * self.chunk_length, device=x.device)
        chunk = frames[:, None] // self.chunk_length  # the chunk of the frame that attends
        visible = frames >= chunk * self.chunk_length - self.left_context
        visible = visible & (frames < (chunk + 1) * self.chunk_length)
        rotation = rotary_table(frames, self.layers[0].head_dim)
        for layer in self.layers:
            x = layer(x, visible, rotation)
        return zero_padding(self.norm(x[:, :num_outputs]), lengths), lengths

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """Return the state before the first chunk."""
        history = self.left_context, self.history
        sizes = len(self.layers), *history, self.attention_width, self.output_dim
        return no_past(batch_size, *sizes, device, dtype)

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode one chunk.

        The end of the utterance is padded with zeros (`asrprune.transducer.encoder.windows` pads).

        Args:
            x: features (B, chunk_frames + lookahead_frames, num_features).
            state: the state before the chunk.

        Returns:
            Outputs (B, chunk, dim) and the state after the chunk.
        """
        return forward_chunk(self, x, state)

    def chunk(self, x: Tensor, past: Past, done: Tensor) -> tuple[Tensor, Past]:
        """Encode a chunk, see `ChunkEncoder`."""
        x = self.embed(x)
        positions = done[:, None] + torch.arange(self.chunk_length, device=x.device)
        rotation = rotary_heads(positions, self.layers[0].head_dim)
        bias = score_bias(visible_past(done, self.left_context, self.chunk_length))
        kept = []
        for layer, keys, values, history in zip(self.layers, *past, strict=True):
            x, *frames = layer.chunk(x, keys, values, history, bias, rotation)
            kept.append(frames)
        return self.norm(x), Past(*zip(*kept, strict=True))


class StreamingLayer(Layer):
    """Compute a Conformer layer with a causal convolution, for whole utterances or chunks."""

    def forward(  # type: ignore[override]  # sees past and chunk, where `Layer` sees all
        self, x: Tensor, visible: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Compute the layer for whole utterances.

        Args:
            x: (B, T, D).
            visible: (T, T) bool, True where the frame of a row may see the frame of a column.
            rotation: from `rotary_table`.

        Returns:
            (B, T, D).
        """
        x = x + 0.5 * self.ffn1(x)
        x = x + self.attend(*self.project(x, rotation), visible)
        size = self.conv_module.sequential[2].kernel_size[0] - 1
        x, _ = convolution.continued(self.conv_module, x, x.new_zeros(x.size(0), size, x.size(2)))
        return x + 0.5 * self.ffn2(x)

    def chunk(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        history: Tensor,
        bias: Tensor,
        rotation: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the layer for a chunk.

        Args:
            x: the chunk (B, T, D).
            keys: past keys of this layer, see `Past`.
            values: past values of this layer, see `Past`.
            history: past inputs of the convolution of this layer, see `Past`.
            bias: from `score_bias`.
            rotation: from `rotary_heads`.

        Returns:
            Outputs (B, T, D); and keys, values and inputs of the convolution, each followed by
            those of ``x``.
        """
        x = x + 0.5 * self.ffn1(x)
        attention = self.self_attn
        projected = F.linear(
            self.self_attn_layer_norm(x), attention.in_proj_weight, attention.in_proj_bias
        )
        heads = projected.unflatten(-1, (-1, self.head_dim)).transpose(
            1, 2
        )  # (B, 3 H, T, head_dim)
        attended, keys, values = attend_to_past(heads, keys, values, bias, rotation)
        out = attention.out_proj
        x = x + self.self_attn_dropout(F.linear(attended, out.weight, out.bias))
        x, history = convolution.continued(self.conv_module, x, history)
        return x + 0.5 * self.ffn2(x), keys, values, history
