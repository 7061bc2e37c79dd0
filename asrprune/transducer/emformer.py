"""Streaming Emformer (Shi et al. 2021) on torchaudio's model, with its traps avoided.

torchaudio's `Emformer` gives the parameters, their names and their first values. Its two passes
are not used: the whole-utterance one goes wrong without an error when T exceeds the longest length
and disagrees with the chunk-by-chunk one in a partial last segment, and the chunk-by-chunk one
reads a length back from the device, which no exporter can follow. Both are written here over one
function of a layer, so that they agree.

Two departures. As in `asrprune.transducer.conformer`, and for its reason, one norm ends the encoder
in place of one a layer. And queries and keys are turned by their positions (`rotary`): published
Emformers know none, which a small one pays for (on an hour of synthetic speech, loss after two
epochs 1.16 a token with positions and a left context of 16 frames, 1.35 without and 8, 1.71 without
and 30).
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
    """A streaming encoder; the defaults are torchaudio's published LibriSpeech transducer.

    ``stacked_frames`` feature frames become one encoder frame of 40 ms. The lengths are in encoder
    frames: a segment of 160 ms sees itself, 40 ms to its right and 1.2 s to its left, in each
    layer. The latency of the model is a segment and its right context.

    Args:
        num_features: mel bins.
        dim: width of the layers; without ``head_dim`` a multiple of ``2 * num_heads``.
        ffn_dim: inner width of the feed-forward modules; or a list of widths, one for each layer.
        dropout: probability after each module and inside the feed-forward layers.
        attention_dropout: probability on attention weights; costs the fast kernel on a CPU.
        rotary: turn queries and keys by their positions; False, as published, knows none.
        activation: of the feed-forward layers: relu, gelu or silu.
        kernel_size: frames that a causal convolution in each layer sees, odd (as in icefall's
            ConvEmformer); 0, as published, for layers without one.
        head_dim: width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: sizes that do not fit each other, or an unknown activation.
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
    """See `emformer`; an `asrprune.transducer.encoder.StreamingEncoder`."""

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
        # no bias: frames of zeros past the end stay zeros
        self.input_linear = nn.Linear(num_features * stacked_frames, dim, bias=False)
        self.emformer = model
        self.norm = nn.LayerNorm(dim)
        self.head_dim = head_dim
        self.attention_dropout = attention_dropout
        self.rotary = rotary
        self.history = max(kernel_size - 1, 0)  # frames of the past that a convolution sees
        self.output_dim = dim
        self.subsampling = stacked_frames
        self.segment = model.segment_length
        self.right_context = model.right_context_length
        self.left_context = model.left_context_length
        self.chunk_frames = self.segment * stacked_frames
        self.lookahead_frames = self.right_context * stacked_frames

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """``ceil(x_lens / stacked_frames)``: at least 1 for any utterance of at least one frame."""
        return (x_lens + self.subsampling - 1) // self.subsampling

    @property
    def attention_width(self) -> int:
        """The width of all heads together, also while some are cut out."""
        return self.emformer.emformer_layers[0].attention.out_proj.weight.shape[1]

    def heads(self) -> Heads:
        """The heads of attention."""
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
        """The layers, of which some can be left out."""
        return Stack("emformer.emformer_layers", "num_layers")

    def channels(self) -> list[Channels]:
        """The inner channels of the feed-forward modules."""
        return [
            feed_forward_channels(
                f"layers.{layer}.pos_ff", f"emformer.emformer_layers.{layer}.pos_ff"
            )
            for layer in range(len(self.emformer.emformer_layers))
        ]

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` (B, T, num_features), ``x_lens`` (B,) -> (B, ceil(T / 4), dim), (B,).

        Equal to `forward_chunk` over an utterance that zeros follow.
        """
        lengths = self.output_lengths(x_lens)
        num_outputs = -(-x.size(1) // self.subsampling)
        num_segments = -(-x.size(1) // self.chunk_frames)
        size = num_segments * self.chunk_frames + self.lookahead_frames
        x = F.pad(zero_padding(x, x_lens), (0, 0, 0, size - x.size(1)))
        x = self._stack(x)  # (B, segments * segment + right context, D)
        # each segment has its own copy of its right context, because the two see different frames
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
        """What is kept of the past before the first chunk."""
        history = self.left_context, self.history
        num_layers = len(self.emformer.emformer_layers)
        sizes = num_layers, *history, self.attention_width, self.output_dim
        return no_past(batch_size, *sizes, device, dtype)

    def forward_chunk(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x`` (B, chunk_frames + lookahead_frames, num_features) -> (B, segment, dim), state.

        The utterance's end is padded with zeros (`asrprune.transducer.encoder.windows` does it).
        """
        return forward_chunk(self, x, state)

    def chunk(self, x: Tensor, past: Past, done: Tensor) -> tuple[Tensor, Past]:
        """Compute a segment and its right context, see `ChunkEncoder`."""
        x = self._stack(x)
        rotation = None
        if self.rotary:  # keys are kept turned by their own position
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
        """Frames (B, n * stacked_frames, num_features) -> (B, n, dim)."""
        return self.input_linear(x.unflatten(1, (-1, self.subsampling)).flatten(2))

    def _visible(self, num_segments: int, device: torch.device) -> Tensor:
        """What each position may look at: (N, N) bool over [right context copies, frames]."""
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
        """Queries, keys and values, (B, N, H head_dim); the first two turned by their positions."""
        x = layer.layer_norm_input(x)
        k, v = layer.attention.emb_to_key_value(x).chunk(2, dim=-1)
        q = layer.attention.emb_to_query(x)
        if self.rotary:
            turned = torch.stack((q, k), dim=2).unflatten(-1, (-1, self.head_dim))
            q, k = rotate(turned, *rotation).flatten(-2).unbind(2)
        return q, k, v

    def _heads(self, layer: EmformerLayer, x: Tensor) -> Tensor:
        """Queries, keys and values of ``x`` (B, T, D), (B, 3 H, T, head_dim)."""
        x = layer.layer_norm_input(x)
        maps = layer.attention.emb_to_query, layer.attention.emb_to_key_value
        if torch.compiler.is_exporting():
            # one product in place of two; the exporter joins the constants, once
            weight = torch.cat([linear.weight for linear in maps])
            projected = F.linear(x, weight, torch.cat([linear.bias for linear in maps]))
        else:
            projected = torch.cat([linear(x) for linear in maps], dim=-1)
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _attend(
        self, layer: EmformerLayer, x: Tensor, q: Tensor, k: Tensor, v: Tensor, visible: Tensor
    ) -> Tensor:
        """Add attention of the queries of ``x`` (B, N, D) to keys (B, M, H head_dim)."""
        q, k, v = [t.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for t in (q, k, v)]
        p = self.attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=p)
        return x + layer.dropout(layer.attention.out_proj(attended.transpose(1, 2).flatten(2)))

    def _convolve(self, layer: EmformerLayer, x: Tensor, num_segments: int) -> Tensor:
        """Add the causal convolution over ``x``: copies of right contexts, then the segments.

        A segment's right context sees that segment.
        """
        module, num_copies = layer.conv_module, num_segments * self.right_context
        expanded = convolution.expand(module, x)
        frames = F.pad(expanded[:, num_copies:], (0, 0, self.history, 0))
        convolved = convolution.convolve(module, frames, 0)
        if num_copies:
            copies = expanded[:, :num_copies].unflatten(1, (num_segments, self.right_context))
            # each segment's last frames, (B, segments, kernel_size - 1, D), stand before its copies
            ends = frames.unfold(1, self.history, self.segment)[:, 1:].transpose(2, 3)
            copies = torch.cat((ends, copies), dim=2).flatten(0, 1)
            copies = convolution.convolve(module, copies, 0).reshape(x.size(0), num_copies, -1)
            convolved = torch.cat((copies, convolved), dim=1)
        return x + convolution.project(module, convolved)


def narrow_attention(attention: EmformerAttention, width: int) -> None:
    """Make queries, keys and values ``width`` wide: keep their first rows, and output columns."""
    for linear, times in ((attention.emb_to_query, 1), (attention.emb_to_key_value, 2)):
        for name, value in list(linear.named_parameters()):
            first = value.detach().unflatten(0, (times, -1))[:, :width].flatten(0, 1)
            setattr(linear, name, nn.Parameter(first.clone()))
        linear.out_features = times * width
    out = attention.out_proj
    out.weight = nn.Parameter(out.weight.detach()[:, :width].clone())
    out.in_features = width
