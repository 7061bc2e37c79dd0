"""What an encoder is, and the masking helpers that make an utterance independent of its batch.

An encoder is any ``nn.Module`` with the members of `Encoder`; nothing has to be inherited, so
somebody else's encoder fits after adding three attributes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError

# (B, T', D), (B,) -> fewer frames, after the subsampling of a training batch
FrameTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Channels:
    """Channels between linear maps: without some of them a smaller dense network is left.

    Channel ``j`` is row ``j`` of each parameter in ``rows``, and column ``j`` of each parameter in
    ``columns``. A channel whose weights are all zero must contribute nothing: what lies between the
    maps takes zero to zero, as ReLU, GELU, SiLU and tanh do. Names are those of the encoder's
    ``named_parameters``.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    option: str  # of the encoder's factory: a list of widths, one for each `Channels` in order


@dataclass(frozen=True)
class Stack:
    """Layers, one after another: without some of them a smaller network of the same kind is left.

    A layer whose parameters are all zero must return its input.
    """

    name: str  # path of the `nn.ModuleList` in the encoder
    option: str  # of the encoder's factory: the number of layers


@dataclass(frozen=True)
class Heads:
    """Heads of attention: without head ``j`` of all layers a smaller network is left.

    All layers have the same number of heads, as the state of a stream has one width for all of
    them. A head whose weights are all zero must contribute nothing.
    """

    rows: dict[str, int]  # parameter -> how often its rows hold all heads: 3 for q, k and v
    columns: tuple[str, ...]  # parameters whose columns hold all heads once
    size: int  # rows, or columns, of a head
    option: str = "num_heads"  # of the encoder's factory
    size_option: str = "head_dim"  # of the encoder's factory


class Encoder(Protocol):
    """Feature frames to encoder frames; B utterances, T feature frames, T' encoder frames.

    The law that every encoder keeps (evaluation mode, 1e-5): the valid outputs of an utterance are
    the same alone, in any batch, and whatever stands in the padding, NaN included. T may exceed the
    longest length.
    """

    output_dim: int  # D
    subsampling: int  # feature frames per encoder frame

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """The number of encoder frames of utterances of ``x_lens`` feature frames."""

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` (B, T, num_features), ``x_lens`` (B,) int64 -> (B, T', D), (B,) int64.

        T' belongs to T, and so may exceed the longest output length; outputs past an utterance's
        length are zero. An encoder may also take ``frame_transform``, a `FrameTransform` that it
        calls after its subsampling; it is needed where data pruning drops encoder frames.
        """

    # An encoder also names what can be cut out of it: ``channels() -> list[Channels]``,
    # ``stack() -> Stack`` and ``heads() -> Heads``.


class StreamingEncoder(Encoder, Protocol):
    """An encoder that also takes an utterance chunk by chunk, with the outputs of the whole.

    A call sees ``chunk_frames`` feature frames and ``lookahead_frames`` more; the next call starts
    ``chunk_frames`` later. The utterance's end is padded with zeros until every frame has been in
    the first ``chunk_frames`` of a call; outputs past ``output_lengths`` are dropped by the caller.
    """

    streaming: bool  # True
    chunk_frames: int
    lookahead_frames: int

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Any:
        """The state before the first chunk: a pytree of tensors, batch in dimension 0 of each."""

    def forward_chunk(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """``x`` (B, chunk_frames + lookahead_frames, num_features), state -> (B, T', D), state."""


def start_silent(*branch_ends: nn.Module) -> None:
    """Zero the last linear maps of residual branches: a new layer then passes its input through.

    What the audio says reaches the joiner from the first step on, and a branch joins in as it
    becomes useful (Goyal et al. 2017, section 5.1, for the norms that end ResNet's branches). A
    Conformer of five layers began to use the audio after 900 steps in place of 1,500, at 1.4 times
    the learning rate (an hour of synthetic speech).
    """
    for module in branch_ends:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


def feed_forward_channels(name: str, path: str) -> Channels:
    """The inner channels of torchaudio's feed-forward module, a ``Sequential`` at ``path``."""
    rows = (f"{path}.1.weight", f"{path}.1.bias")
    return Channels(name, rows, (f"{path}.4.weight",), "ffn_dim")


def set_width(feed_forward: nn.Sequential, width: int) -> None:
    """Give torchaudio's feed-forward module another number of inner channels, with new weights."""
    first, second = cast(nn.Linear, feed_forward[1]), cast(nn.Linear, feed_forward[4])
    if first.out_features != width:
        feed_forward[1] = nn.Linear(first.in_features, width)
        feed_forward[4] = nn.Linear(width, second.out_features)


def checked_heads(dim: int, num_heads: int, head_dim: int | None) -> int:
    """Return the width of a head.

    Args:
        dim: width of a layer.
        num_heads: the number of heads.
        head_dim: the width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: the heads are wider than the layer, or of an odd width.
    """
    if head_dim is None:
        if dim % (2 * num_heads):
            raise UserError(f"dim={dim} must be a multiple of 2 * num_heads = {2 * num_heads}")
        return dim // num_heads
    if head_dim < 2 or head_dim % 2 or num_heads * head_dim > dim:
        raise UserError(
            f"head_dim={head_dim}: an even number of at least 2, and num_heads={num_heads} heads "
            f"of it no wider than dim={dim}"
        )
    return head_dim


def widths_of(option: str, value: int | Sequence[int], count: int) -> list[int]:
    """Return the width of each of ``count`` modules: one number for all, or a list of numbers.

    Raises:
        UserError: another number of widths, or a width below 1.
    """
    widths = [value] * count if isinstance(value, int) else list(value)
    if len(widths) != count:
        raise UserError(f"{option}: {len(widths)} widths for {count} modules. Give one for each")
    if any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
        raise UserError(f"{option}={value}: widths are whole numbers of at least 1")
    return widths


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """(B,) lengths -> (B, size) bool, True past the end of each utterance."""
    return torch.arange(size, device=lengths.device) >= lengths.unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """``x`` (B, T, ...) with zeros past ``lengths`` (B,), whatever stood there before."""
    mask = padding_mask(lengths, x.size(1))
    return x.masked_fill(mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0.0)


def windows(
    x: Tensor, x_lens: Tensor, chunk_frames: int, lookahead_frames: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The calls of a streaming encoder over whole utterances ``x`` (B, T, num_features).

    Yields ``(window, lens)``: (B, chunk_frames + lookahead_frames, num_features) with zeros past
    the end, and how many frames of it belong to each utterance (B,), 0 once it is over. As many as
    T needs.
    """
    count = -(-x.size(1) // chunk_frames)
    size = chunk_frames + lookahead_frames
    x = F.pad(
        zero_padding(x, x_lens), (0, 0, 0, count * chunk_frames + lookahead_frames - x.size(1))
    )
    for start in range(0, count * chunk_frames, chunk_frames):
        yield x[:, start : start + size], (x_lens - start).clamp(0, size)
