"""Convolutional subsampling by 4, of whole utterances in any padding and of streams."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.transducer.encoder import padding_mask, zero_padding


class ConvSubsampling(nn.Module):
    """Two 3x3 convolutions of stride 2 over (time, mel), and a linear layer to ``dim``.

    Frames past the end are zeroed before each convolution, so that an utterance's last frame sees
    the zeros that the convolution's own padding gives it when it stands alone. Any utterance of at
    least one frame gives at least one output: ``ceil(ceil(T / 2) / 2)``.

    Few channels are enough and keep this layer cheap: its cost grows with their product, and
    64 channels each would cost a small model a third of its time on a CPU.
    """

    factor = 4

    def __init__(self, num_features: int, dim: int, channels: Sequence[int], dropout: float):
        super().__init__()
        first, second = channels
        self.conv1 = nn.Conv2d(1, first, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.out = nn.Linear(second * _half(_half(num_features)), dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def output_lengths(self, x_lens: Tensor) -> Tensor:
        """Output frames of utterances of ``x_lens`` frames."""
        return _half(_half(x_lens))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` (B, T, num_features), ``x_lens`` (B,) -> (B, ceil(T / 4), dim), (B,)."""
        x = zero_padding(x, x_lens).unsqueeze(1)  # (B, 1, T, F)
        x = F.silu(self.conv1(x))  # (B, C1, T/2, F/2)
        # masked in this layout: a transposed tensor would make the next convolution copy and crawl
        x = x.masked_fill(padding_mask(_half(x_lens), x.size(2))[:, None, :, None], 0.0)
        x = F.silu(self.conv2(x))  # (B, C2, T/4, F/4)
        x = self.out(x.transpose(1, 2).flatten(2))
        return self.dropout(self.norm(x)), self.output_lengths(x_lens)


class StreamSubsampling(ConvSubsampling):
    """The same over a piece of a stream: an output sees its 4 frames and the 3 that follow.

    No frame of an earlier piece is needed, and no place has zeros of the convolutions' own.
    """

    lookahead = 3  # frames

    def __init__(self, num_features: int, dim: int, channels: Sequence[int], dropout: float):
        super().__init__(num_features, dim, channels, dropout)
        self.conv1.padding = self.conv2.padding = (0, 1)  # of (time, mel)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no lengths in a stream
        """``x`` (B, 4 n + 3, num_features) -> (B, n, dim)."""
        x = F.silu(self.conv1(x.unsqueeze(1)))
        x = F.silu(self.conv2(x))
        x = self.out(x.transpose(1, 2).flatten(2))
        return self.dropout(self.norm(x))


def _half(length):
    """Length after a convolution of kernel 3, stride 2, padding 1: half of it, rounded up."""
    return (length + 1) // 2
