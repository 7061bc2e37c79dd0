"""Offline Conformer (Gulati et al. 2020) on torchaudio's layers, with their leaks mended.

torchaudio's `ConformerLayer` gives the parameters and their names; the computation is written here
because its own lets padding into the depthwise convolution and into the batch statistics, and
knows no positions. Here padding is masked before that convolution, LayerNorm over channels takes
the place of BatchNorm (sub-networks have no common statistics either), and queries and keys are
rotated by their position (Su et al. 2021, RoFormer).

One departure from the paper: the norm that ends each layer is left out, and one ends the encoder.
With a norm a layer, any constant that the layers add shrinks what the audio says, layer by layer;
trained from scratch on an hour of speech such encoders ended up saying the same for every audio
(outputs of two utterances differed by less than 0.008 of their size, in five runs of five).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.models.conformer import ConformerLayer

from asrprune.base.errors import UserError
from asrprune.transducer import convolution
from asrprune.transducer.attention import plain_attention, score_bias
from asrprune.transducer.encoder import (
    Channels,
    FrameTransform,
    Heads,
    Stack,
    checked_heads,
    feed_forward_channels,
    padding_mask,
    set_width,
    start_silent,
    widths_of,
)
from asrprune.transducer.rotary import rotary_table, rotate
from asrprune.transducer.subsampling import ConvSubsampling


def conformer(
    num_features: int,
    *,
    dim: int = 256,
    num_layers: int = 12,
    num_heads: int = 4,
    ffn_dim: int | Sequence[int] = 1024,
    kernel_size: int = 31,
    dropout: float = 0.1,
    attention_dropout: float = 0.0,
    subsampling_channels: Sequence[int] = (8, 32),
    head_dim: int | None = None,
) -> "Conformer":
    """A Conformer encoder that sees the whole utterance; one output for four feature frames.

    Args:
        num_features: mel bins.
        dim: width of the layers; without ``head_dim`` a multiple of ``2 * num_heads``.
        ffn_dim: inner width of the feed-forward modules; or a list of widths, of the first and the
            second module of each layer.
        kernel_size: frames (of 40 ms) that the depthwise convolution sees, odd.
        dropout: probability after each module and inside the feed-forward layers.
        attention_dropout: probability on attention weights; costs the fast kernel on a CPU.
        subsampling_channels: channels of the two convolutions that subsample.
        head_dim: width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: sizes that do not fit each other.
    """
    widths = check_sizes(dim, num_layers, num_heads, ffn_dim, kernel_size, subsampling_channels)
    heads = num_heads, checked_heads(dim, num_heads, head_dim)
    return Conformer(
        ConvSubsampling(num_features, dim, subsampling_channels, dropout),
        nn.ModuleList(
            Layer(dim, pair, heads, kernel_size, dropout, attention_dropout) for pair in widths
        ),
    )


def check_sizes(
    dim: int,
    num_layers: int,
    num_heads: int,
    ffn_dim: int | Sequence[int],
    kernel_size: int,
    subsampling_channels: Sequence[int],
) -> list[tuple[int, int]]:
    """Check that the sizes of a Conformer fit each other.

    Returns:
        for each layer the inner widths of its two feed-forward modules.

    Raises:
        UserError: a size is below 1, the kernel size is even, there are not two widths for each
            layer, or the subsampling does not have two convolutions.
    """
    if min(dim, num_layers, num_heads, kernel_size) < 1:
        raise UserError("dim, num_layers, num_heads and kernel_size: at least 1 each")
    if kernel_size % 2 == 0:
        raise UserError(f"kernel_size={kernel_size}: the Conformer's kernel must be odd")
    if len(subsampling_channels) != 2:
        raise UserError(
            f"subsampling_channels={list(subsampling_channels)}: two numbers, one a convolution"
        )
    widths = widths_of("ffn_dim", ffn_dim, 2 * num_layers)
    return list(zip(widths[::2], widths[1::2], strict=True))


def channels_of(num_layers: int) -> list[Channels]:
    """The inner channels of the feed-forward modules of a Conformer's layers, in order."""
    return [
        feed_forward_channels(f"layers.{layer}.{part}", f"layers.{layer}.{part}.sequential")
        for layer in range(num_layers)
        for part in ("ffn1", "ffn2")
    ]


def heads_of(layers: Sequence["Layer"]) -> Heads:
    """The heads of attention of a Conformer's layers."""
    paths = [f"layers.{place}.self_attn" for place in range(len(layers))]
    return Heads(
        {f"{path}.{name}": 3 for path in paths for name in ("in_proj_weight", "in_proj_bias")},
        tuple(f"{path}.out_proj.weight" for path in paths),
        layers[0].head_dim,
    )


class Conformer(nn.Module):
    """See `conformer`; an `asrprune.transducer.encoder.Encoder`."""

    streaming = False
    layers: Sequence["Layer"]  # an nn.ModuleList, which has no type of its items in torch

    def __init__(self, subsampling: ConvSubsampling, layers: nn.ModuleList):
        super().__init__()
        self.embed = subsampling
        self.layers = cast(Sequence[Layer], layers)
        self.norm = nn.LayerNorm(subsampling.out.out_features)
        self.output_dim = subsampling.out.out_features
        self.subsampling = subsampling.factor

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """``ceil(ceil(x_lens / 2) / 2)``: at least 1 for any utterance of at least one frame."""
        return self.embed.output_lengths(x_lens)

    def heads(self) -> Heads:
        """The heads of attention."""
        return heads_of(self.layers)

    def stack(self) -> Stack:
        """The layers, of which some can be left out."""
        return Stack("layers", "num_layers")

    def channels(self) -> list[Channels]:
        """The inner channels of the feed-forward modules."""
        return channels_of(len(self.layers))

    def forward(
        self, x: Tensor, x_lens: Tensor, frame_transform: FrameTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """``x`` (B, T, num_features), ``x_lens`` (B,) -> (B, ceil(T / 4), dim), (B,)."""
        x, lengths = self.embed(x, x_lens)
        if frame_transform:
            x, lengths = frame_transform(x, lengths)
        padding = padding_mask(lengths, x.size(1))
        # an utterance of no frames still needs one key, or its attention is 0 / 0
        keys = (~padding_mask(lengths.clamp(min=1), x.size(1)))[:, None, None, :]
        padding = padding.unsqueeze(-1)
        rotation = rotary_table(torch.arange(x.size(1), device=x.device), self.layers[0].head_dim)
        for layer in self.layers:
            x = layer(x, padding, keys, rotation)
        return self.norm(x).masked_fill(padding, 0.0), lengths


class Layer(ConformerLayer):
    """torchaudio's layer with the same parameters, batch first, blind to padding."""

    def __init__(
        self,
        dim: int,
        ffn_dims: tuple[int, int],
        heads: tuple[int, int],  # their number, and the width of each
        kernel_size: int,
        dropout: float,
        attention_dropout: float,
    ):
        num_heads, head_dim = heads
        whole = num_heads * head_dim == dim
        super().__init__(dim, ffn_dims[0], num_heads if whole else 1, kernel_size, dropout)
        self.head_dim = head_dim
        if not whole:
            narrow_attention(self.self_attn, num_heads * head_dim)
        set_width(self.ffn2.sequential, ffn_dims[1])
        convolution.with_layer_norm(self.conv_module)
        self.final_layer_norm = nn.Identity()
        start_silent(
            self.ffn1.sequential[4],
            self.self_attn.out_proj,
            self.conv_module.sequential[5],
            self.ffn2.sequential[4],
        )
        self.attention_dropout = attention_dropout

    def forward(
        self, x: Tensor, padding: Tensor, keys: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> Tensor:
        """``x`` (B, T, D) -> (B, T, D).

        ``padding`` (B, T, 1) is True past the end, ``keys`` (B, 1, 1, T) True where attention may
        look, ``rotation`` as from `rotary_table`. Outputs past the end are finite and meaningless.
        """
        x = x + 0.5 * self.ffn1(x)
        x = x + self.attend(*self.project(x, rotation), keys)
        x = x + self._convolve(x, padding)
        return x + 0.5 * self.ffn2(x)

    def project(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``x`` (B, T, D), after the norm: (B, H, T, head_dim)."""
        attention = self.self_attn  # nn.MultiheadAttention: its parameters, not its computation
        x = self.self_attn_layer_norm(x)
        x = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)  # (B, T, 3 H head_dim)
        x = x.unflatten(-1, (3, -1, self.head_dim))  # (B, T, 3, H, head_dim)
        q, k = rotate(x[:, :, :2], *rotation).transpose(1, 3).unbind(2)
        return q, k, x[:, :, 2].transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        """Queries (B, H, T, head_dim) over keys and values of any number -> (B, T, D)."""
        if torch.compiler.is_exporting():
            x = plain_attention(q, k, v, score_bias(visible))
        else:
            p = self.attention_dropout if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, dropout_p=p)
        out = self.self_attn.out_proj
        return self.self_attn_dropout(F.linear(x.transpose(1, 2).flatten(2), out.weight, out.bias))

    def _convolve(self, x: Tensor, padding: Tensor) -> Tensor:
        module = self.conv_module
        x = convolution.expand(module, x).masked_fill(padding, 0.0)
        x = convolution.convolve(module, x, module.sequential[2].kernel_size[0] // 2)
        return convolution.project(module, x)


def narrow_attention(attention: nn.MultiheadAttention, width: int) -> None:
    """Make queries, keys and values ``width`` wide: keep their first rows, and output columns."""
    dim = attention.embed_dim
    weight, bias = attention.in_proj_weight.detach(), attention.in_proj_bias.detach()
    attention.in_proj_weight = nn.Parameter(weight.view(3, dim, dim)[:, :width].flatten(0, 1))
    attention.in_proj_bias = nn.Parameter(bias.view(3, dim)[:, :width].flatten())
    out = attention.out_proj
    out.weight = nn.Parameter(out.weight.detach()[:, :width].clone())
    out.in_features = width
