"""Define the interface of encoders, and the masks that make an utterance independent of its batch.

An encoder is any ``nn.Module`` with the members of `Encoder`. It need not inherit from a class of
this package. So an encoder of another project fits after three attributes are added.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError

# In training, after the subsampling: (B, T', D), lengths (B,) -> fewer frames, their lengths.
FrameTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Channels:
    """Name the channels between two linear maps. A smaller dense network lacks some channels.

    Channel ``j`` is row ``j`` of each parameter in ``rows`` and column ``j`` of each parameter in
    ``columns``. A channel whose weights are all zero must contribute nothing. So the function
    between the maps must map zero to zero, like ReLU, GELU, SiLU and tanh. The names are those of
    the encoder's ``named_parameters``.
    """

    name: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    option: str  # option of the encoder's factory: a list of widths, one for each `Channels`


@dataclass(frozen=True)
class Stack:
    """Name a stack of layers. A smaller network of the same type lacks some layers.

    A layer whose parameters are all zero must return its input.
    """

    name: str  # path of the `nn.ModuleList` in the encoder
    option: str  # option of the encoder's factory: the number of layers


@dataclass(frozen=True)
class Heads:
    """Name the attention heads. A smaller network lacks head ``j`` of all layers.

    All layers have the same number of heads, because the state of a stream has one width for all
    layers. A head whose weights are all zero must contribute nothing.
    """

    rows: dict[str, int]  # parameter -> how often its rows repeat all heads: 3 for q, k and v
    columns: tuple[str, ...]  # parameters whose columns contain all heads once
    size: int  # number of rows or columns of a head
    option: str = "num_heads"  # option of the encoder's factory
    size_option: str = "head_dim"  # option of the encoder's factory


class Encoder(Protocol):
    """Map feature frames to encoder frames.

    B is the number of utterances, T of feature frames, T' of encoder frames. Every encoder keeps
    one law (in evaluation mode, to 1e-5): the valid outputs of an utterance are the same alone and
    in any batch, for any content of the padding, also NaN. T may exceed the longest length.
    """

    output_dim: int  # D
    subsampling: int  # feature frames per encoder frame

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """Return the number of encoder frames of utterances with ``x_lens`` feature frames."""

    def __call__(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch of utterances.

        The size T' depends on T, so T' may exceed the longest output length. Outputs past the
        length of an utterance are zero. An encoder may also take ``frame_transform``, a
        `FrameTransform` that it calls after its subsampling. Data pruning needs this argument to
        drop encoder frames.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,) int64.

        Returns:
            Outputs (B, T', D) and their lengths (B,) int64.
        """

    # An encoder also names the units that can be cut out: ``channels() -> list[Channels]``,
    # ``stack() -> Stack`` and ``heads() -> Heads``.


class StreamingEncoder(Encoder, Protocol):
    """Encode an utterance chunk by chunk, with the same outputs as for the whole utterance.

    A call sees ``chunk_frames`` feature frames and ``lookahead_frames`` more. The next call starts
    ``chunk_frames`` later. The end of the utterance is padded with zeros until every frame has been
    among the first ``chunk_frames`` of a call. The caller drops outputs past ``output_lengths``.
    """

    streaming: bool  # True
    chunk_frames: int
    lookahead_frames: int

    def initial_state(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> Any:
        """Return the state before the first chunk: a pytree of tensors, batch in dimension 0."""

    def forward_chunk(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Encode one chunk.

        Args:
            x: features (B, chunk_frames + lookahead_frames, num_features).
            state: the state before the chunk.

        Returns:
            Outputs (B, T', D) and the state after the chunk.
        """


def start_silent(*branch_ends: nn.Module) -> None:
    """Set the last linear maps of residual branches to zero: a new layer then returns its input.

    The audio then affects the joiner from the first step on, and a branch contributes when it
    becomes useful (Goyal et al. 2017, section 5.1, for the norms that end ResNet's branches). A
    Conformer of five layers began to use the audio after 900 steps instead of 1,500, at 1.4 times
    the learning rate (an hour of synthetic speech).
    """
    for module in branch_ends:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


def feed_forward_channels(name: str, path: str) -> Channels:
    """Return the inner channels of torchaudio's feed-forward module, a ``Sequential``.

    Args:
        name: the name of the channels.
        path: the path of the module in the encoder.
    """
    rows = (f"{path}.1.weight", f"{path}.1.bias")
    return Channels(name, rows, (f"{path}.4.weight",), "ffn_dim")


def set_width(feed_forward: nn.Sequential, width: int) -> None:
    """Change the number of inner channels of torchaudio's feed-forward module, with new weights."""
    first, second = cast(nn.Linear, feed_forward[1]), cast(nn.Linear, feed_forward[4])
    if first.out_features != width:
        feed_forward[1] = nn.Linear(first.in_features, width)
        feed_forward[4] = nn.Linear(width, second.out_features)


def checked_heads(dim: int, num_heads: int, head_dim: int | None) -> int:
    """Return the width of a head, after checking it.

    Args:
        dim: width of a layer.
        num_heads: the number of heads.
        head_dim: the width of a head; None: ``dim / num_heads``.

    Raises:
        UserError: the heads together are wider than the layer, or the width of a head is odd.
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
    """Return the width of each of ``count`` modules.

    Args:
        option: the name of the option, for messages.
        value: one width for all modules, or a list with one width for each module.
        count: the number of modules.

    Raises:
        UserError: the list has another length, or a width is below 1.
    """
    widths = [value] * count if isinstance(value, int) else list(value)
    if len(widths) != count:
        raise UserError(f"{option}: {len(widths)} widths for {count} modules. Give one for each")
    if any(isinstance(w, bool) or not isinstance(w, int) or w < 1 for w in widths):
        raise UserError(f"{option}={value}: widths are whole numbers of at least 1")
    return widths


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """Return the mask of the padding: (B,) lengths -> (B, size) bool, True past the end."""
    return torch.arange(size, device=lengths.device) >= lengths.unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """Return ``x`` (B, T, ...) with zeros past ``lengths`` (B,), whatever the padding contains."""
    mask = padding_mask(lengths, x.size(1))
    return x.masked_fill(mask.view(*mask.shape, *[1] * (x.dim() - 2)), 0.0)


def windows(
    x: Tensor, x_lens: Tensor, chunk_frames: int, lookahead_frames: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the inputs of a streaming encoder for whole utterances, call by call.

    Args:
        x: features (B, T, num_features).
        x_lens: feature frames of each utterance (B,).
        chunk_frames: feature frames of a chunk.
        lookahead_frames: feature frames that a call sees after its chunk.

    Yields:
        ``(window, lens)``: (B, chunk_frames + lookahead_frames, num_features) with zeros past the
        end, and the number of frames (B,) of the window that belong to each utterance, 0 after its
        end. The number of windows is T / ``chunk_frames``, rounded up.
    """
    count = -(-x.size(1) // chunk_frames)
    size = chunk_frames + lookahead_frames
    x = F.pad(
        zero_padding(x, x_lens), (0, 0, 0, count * chunk_frames + lookahead_frames - x.size(1))
    )
    for start in range(0, count * chunk_frames, chunk_frames):
        yield x[:, start : start + size], (x_lens - start).clamp(0, size)
