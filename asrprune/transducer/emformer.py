"""Encode streams with an Emformer (Shi et al. 2021) on torchaudio's model.

torchaudio's `Emformer` provides the parameters, their names and their initial values. Its two
passes are not used, for three reasons:

- The pass over whole utterances gives wrong results without an error if T exceeds the longest
  length.
- The two passes disagree in a partial last segment.
- The pass over chunks reads a length back from the device, which exporters cannot follow.

Both passes are written here with the same layer computation, so that they agree.

There are two departures from the paper. One norm ends the encoder instead of one norm in each
layer; `asrprune.transducer.conformer` gives the reason. Queries and keys are rotated by their
positions (`rotary`), and published Emformers have no positions. Small Emformers lose accuracy
without positions. On an hour of synthetic speech, the loss after two epochs was 1.16 per token with
positions and a left context of 16 frames. Without positions, the loss was 1.35 with a left context
of 8 frames and 1.71 with 30.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models import Emformer as TorchaudioEmformer

from asrprune.base.errors import UserError
from asrprune.transducer import convolution
from asrprune.transducer.attention import score_bias
from asrprune.transducer.encoder import (
    Channels,
    Heads,
    Stack,
    checked_heads,
    feed_forward_channels,
    set_width,
    start_silent,
    widths_of,
    zero_padding,
)
from asrprune.transducer.rotary import rotary_heads, rotary_table, rotate
from asrprune.transducer.streaming import (
    Past,
    State,
    attend_to_past,
    forward_chunk,
    no_past,
    visible_past,
)


class EmformerAttention(Protocol):
    """What is used of torchaudio's attention."""

    emb_to_query: nn.Linear
    emb_to_key_value: nn.Linear
    out_proj: nn.Linear


class EmformerLayer(Protocol):
    """What is used of torchaudio's layer."""

    layer_norm_input: nn.LayerNorm
    attention: EmformerAttention
    dropout: nn.Dropout
    pos_ff: nn.Sequential
    conv_module: convolution.ConvolutionModule  # of `emformer`, where there are convolutions


def emformer(
    num_features: int,
    *,
    dim: int = 512,
    num_layers: int = 20,
    num_heads: int = 8,
    ffn_dim: int | Sequence[int] = 2048,
    segment_length: int = 4,
    right_context_length: int = 1,
    left_context_length: int = 30,
    stacked_frames: int = 4,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    activation: str = "gelu",
    rotary: bool = True,
    kernel_size: int = 0,
    head_dim: int | None = None,
) -> "Emformer":
    """Return a streaming Emformer encoder. The defaults are torchaudio's LibriSpeech transducer.

    ``stacked_frames`` feature frames become one encoder frame of 40 ms. The other lengths are in
    encoder frames. By default, in each layer, a segment of 160 ms sees itself, 40 ms to its right
    and 1.2 s to its left. The latency of the model is a segment and its right context.

    Args:
        num_features: number of mel bins.
        dim: width of the layers; without ``head_dim`` a multiple of ``2 * num_heads``.
        num_layers: number of layers.
        num_heads: number of attention heads of each layer.
        ffn_dim: inner width of the feed-forward modules; or a list with the width of each layer.
        segment_length: encoder frames of a segment.
        right_context_length: encoder frames after a segment that attention sees.
        left_context_length: encoder frames before a segment that attention sees.
        stacked_frames: feature frames that are stacked to one encoder frame.
        dropout: probability of dropout after each module and inside the feed-forward layers.
        attention_dropout: probability of dropout on attention weights. Above 0, the fast attention
            kernel of a CPU cannot be used in training.
        activation: activation of the feed-forward layers: relu, gelu or silu.
        rotary: rotate queries and keys by their positions. False: no positions, as published.
        kernel_size: frames that a causal convolution in each layer sees, an odd number (as in
            icefall's ConvEmformer). 0: no convolution, as published.
        head_dim: width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: the sizes do not fit each other, or the activation is unknown.
    """
    if min(dim, num_layers, num_heads, segment_length, stacked_frames) < 1:
        raise UserError("an Emformer's sizes, segment_length and stacked_frames: at least 1 each")
    if min(right_context_length, left_context_length) < 0:
        raise UserError("right_context_length and left_context_length: at least 0")
    if kernel_size < 0 or (kernel_size and kernel_size % 2 == 0):
        raise UserError(f"kernel_size={kernel_size}: 0, or an odd number of frames")
    if activation not in ("relu", "gelu", "silu"):
        raise UserError(f"activation={activation!r}: one of relu, gelu, silu")
    widths = widths_of("ffn_dim", ffn_dim, num_layers)
    head_dim = checked_heads(dim, num_heads, head_dim)
    whole = num_heads * head_dim == dim
    model = TorchaudioEmformer(
        dim,
        num_heads if whole else 1,
        widths[0],
        num_layers,
        segment_length,
        dropout=dropout,
        activation=activation,
        left_context_length=left_context_length,
        right_context_length=right_context_length,
    )
    for layer, width in zip(model.emformer_layers, widths, strict=True):
        set_width(layer.pos_ff, width)
        if not whole:
            narrow_attention(layer.attention, num_heads * head_dim)
        layer.layer_norm_output = nn.Identity()
        start_silent(layer.attention.out_proj, layer.pos_ff[4])
        if kernel_size:
            layer.conv_module = convolution.convolution_module(dim, kernel_size, dropout)
            start_silent(layer.conv_module.sequential[5])
    return Emformer(
        num_features, stacked_frames, dim, head_dim, model, attention_dropout, rotary, kernel_size
    )


class Emformer(nn.Module):
    """Encode streams, see `emformer`; an `asrprune.transducer.encoder.StreamingEncoder`."""

    streaming = True

    def __init__(
        self,
        num_features: int,
        stacked_frames: int,
        dim: int,
        head_dim: int,
        model: TorchaudioEmformer,
        attention_dropout: float,
        rotary: bool,
        kernel_size: int,
    ):
        super().__init__()
        # no bias: zero frames past the end remain zero
        self.input_linear = nn.Linear(num_features * stacked_frames, dim, bias=False)
        self.emformer = model
        self.norm = nn.LayerNorm(dim)
        self.head_dim = head_dim
        self.attention_dropout = attention_dropout
        self.rotary = rotary
        self.history = max(kernel_size - 1, 0)  # past frames that a convolution sees
        self.output_dim = dim
        self.subsampling = stacked_frames
        self.segment = model.segment_length
        self.right_context = model.right_context_length
        self.left_context = model.left_context_length
        self.chunk_frames = self.segment * stacked_frames
        self.lookahead_frames = self.right_context * stacked_frames

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """Return ``ceil(x_lens / stacked_frames)``: at least 1 for an utterance with any frame."""
        return (x_lens + self.subsampling - 1) // self.subsampling

    @property
    def attention_width(self) -> int:
        """Return the width of all heads together, without the heads that are cut out."""
        return self.emformer.emformer_layers[0].attention.out_proj.weight.shape[1]

    def heads(self) -> Heads:
        """Return the attention heads."""
        count = len(self.emformer.emformer_layers)
        paths = [f"emformer.emformer_layers.{layer}.attention" for layer in range(count)]
        maps = {"emb_to_query": 1, "emb_to_key_value": 2}
        return Heads(
            {
                f"{path}.{name}.{part}": times
                for path in paths
                for name, times in maps.items()
                for part in ("weight", "bias")
            },
            tuple(f"{path}.out_proj.weight" for path in paths),
            self.head_dim,
        )

    def stack(self) -> Stack:
        """Return the stack of layers, which can be shortened."""
        return Stack("emformer.emformer_layers", "num_layers")

    def channels(self) -> list[Channels]:
        """Return the inner channels of the feed-forward modules."""
        return [
            feed_forward_channels(
                f"layers.{layer}.pos_ff", f"emformer.emformer_layers.{layer}.pos_ff"
            )
            for layer in range(len(self.emformer.emformer_layers))
        ]

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        The result equals `forward_chunk` over an utterance that zeros follow.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,).

        Returns:
            Outputs (B, ceil(T / stacked_frames), dim) and their lengths (B,).
        """
        lengths = self.output_lengths(x_lens)
        num_outputs = -(-x.size(1) // self.subsampling)
        num_segments = -(-x.size(1) // self.chunk_frames)
        size = num_segments * self.chunk_frames + self.lookahead_frames
        x = F.pad(zero_padding(x, x_lens), (0, 0, 0, size - x.size(1)))
        x = self._stack(x)  # (B, segments * segment + right context, D)
        # Each segment has its own copy of the frames of its right context. A frame and its copy see
        # different frames.
        starts = torch.arange(1, num_segments + 1, device=x.device) * self.segment
        copies = starts[:, None] + torch.arange(self.right_context, device=x.device)
        frames = torch.arange(num_segments * self.segment, device=x.device)
        positions = torch.cat((copies.flatten(), frames))
        x = x[:, positions]
        rotation = rotary_table(positions, self.head_dim)
        visible = self._visible(num_segments, x.device)
        for layer in self.emformer.emformer_layers:
            x = self._attend(layer, x, *self._project(layer, x, rotation), visible)
            if self.history:
                x = self._convolve(layer, x, num_segments)
            x = x + layer.pos_ff(x)
        x = self.norm(x[:, num_segments * self.right_context :][:, :num_outputs])
        return zero_padding(x, lengths), lengths

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> State:
        """Return the state before the first chunk."""
        history = self.left_context, self.history
        num_layers = len(self.emformer.emformer_layers)
        sizes = num_layers, *history, self.attention_width, self.output_dim
        return no_past(batch_size, *sizes, device, dtype)

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Encode one chunk.

        The end of the utterance is padded with zeros (`asrprune.transducer.encoder.windows` pads).

        Args:
            x: features (B, chunk_frames + lookahead_frames, num_features).
            state: the state before the chunk.

        Returns:
            Outputs (B, segment, dim) and the state after the chunk.
        """
        return forward_chunk(self, x, state)

    def chunk(self, x: Tensor, past: Past, done: Tensor) -> tuple[Tensor, Past]:
        """Encode a segment and its right context, see `ChunkEncoder`."""
        x = self._stack(x)
        rotation = None
        if self.rotary:  # the keys of the past are stored after rotation
            positions = done[:, None] + torch.arange(x.size(1), device=x.device)
            rotation = rotary_heads(positions, self.head_dim)
        bias = score_bias(visible_past(done, self.left_context, x.size(1)))
        keys, values, history = [], [], []
        for layer, *kept in zip(self.emformer.emformer_layers, *past, strict=True):
            heads = self._heads(layer, x)
            attended, k, v = attend_to_past(heads, kept[0], kept[1], bias, rotation)
            x = x + layer.dropout(layer.attention.out_proj(attended))
            frames = kept[2]
            if self.history:
                x, frames = convolution.continued(layer.conv_module, x, frames)
            x = x + layer.pos_ff(x)
            keys.append(k)
            values.append(v)
            history.append(frames)
        return self.norm(x[:, : self.segment]), Past(keys, values, history)

    def _stack(self, x: Tensor) -> Tensor:
        """Stack and project frames: (B, n * stacked_frames, num_features) -> (B, n, dim)."""
        return self.input_linear(x.unflatten(1, (-1, self.subsampling)).flatten(2))

    def _visible(self, num_segments: int, device: torch.device) -> Tensor:
        """Return the mask of visible positions: (N, N) bool over [right context copies, frames]."""
        segments = torch.arange(num_segments, device=device)
        copies = segments.repeat_interleave(self.right_context)
        frames = torch.arange(num_segments * self.segment, device=device)
        row = torch.cat((copies, frames // self.segment))[:, None]  # each position's segment
        first = row * self.segment - self.left_context
        last = (row + 1) * self.segment
        return torch.cat((copies == row, (frames >= first) & (frames < last)), dim=1)

    def _project(
        self, layer: EmformerLayer, x: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, (B, N, H head_dim). Queries and keys are rotated."""
        x = layer.layer_norm_input(x)
        k, v = layer.attention.emb_to_key_value(x).chunk(2, dim=-1)
        q = layer.attention.emb_to_query(x)
        if self.rotary:
            turned = torch.stack((q, k), dim=2).unflatten(-1, (-1, self.head_dim))
            q, k = rotate(turned, *rotation).flatten(-2).unbind(2)
        return q, k, v

    def _heads(self, layer: EmformerLayer, x: Tensor) -> Tensor:
        """Return queries, keys and values of ``x`` (B, T, D) as heads (B, 3 H, T, head_dim)."""
        x = layer.layer_norm_input(x)
        maps = layer.attention.emb_to_query, layer.attention.emb_to_key_value
        if torch.compiler.is_exporting():
            # one product instead of two: the exporter concatenates the constants once
            weight = torch.cat([linear.weight for linear in maps])
            projected = F.linear(x, weight, torch.cat([linear.bias for linear in maps]))
        else:
            projected = torch.cat([linear(x) for linear in maps], dim=-1)
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _attend(
        self, layer: EmformerLayer, x: Tensor, q: Tensor, k: Tensor, v: Tensor, visible: Tensor
    ) -> Tensor:
        """Add attention to ``x`` (B, N, D). Keys and values have (B, M, H head_dim)."""
        q, k, v = [t.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for t in (q, k, v)]
        p = self.attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=p)
        return x + layer.dropout(layer.attention.out_proj(attended.transpose(1, 2).flatten(2)))

    def _convolve(self, layer: EmformerLayer, x: Tensor, num_segments: int) -> Tensor:
        """Add the causal convolution over ``x``: copies of right contexts, then the segments.

        The right context of a segment sees the segment.
        """
        module, num_copies = layer.conv_module, num_segments * self.right_context
        expanded = convolution.expand(module, x)
        frames = F.pad(expanded[:, num_copies:], (0, 0, self.history, 0))
        convolved = convolution.convolve(module, frames, 0)
        if num_copies:
            copies = expanded[:, :num_copies].unflatten(1, (num_segments, self.right_context))
            # the last frames of each segment, (B, segments, kernel_size - 1, D), precede its copies
            ends = frames.unfold(1, self.history, self.segment)[:, 1:].transpose(2, 3)
            copies = torch.cat((ends, copies), dim=2).flatten(0, 1)
            copies = convolution.convolve(module, copies, 0).reshape(x.size(0), num_copies, -1)
            convolved = torch.cat((copies, convolved), dim=1)
        return x + convolution.project(module, convolved)


def narrow_attention(attention: EmformerAttention, width: int) -> None:
    """Reduce the width of queries, keys and values to their first rows."""
    for linear, times in ((attention.emb_to_query, 1), (attention.emb_to_key_value, 2)):
        for name, value in list(linear.named_parameters()):
            first = value.detach().unflatten(0, (times, -1))[:, :width].flatten(0, 1)
            setattr(linear, name, nn.Parameter(first.clone()))
        linear.out_features = times * width
    out = attention.out_proj
    out.weight = nn.Parameter(out.weight.detach()[:, :width].clone())
    out.in_features = width
