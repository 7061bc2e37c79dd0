"""Subsample by 4 with convolutions: whole utterances with any padding, and streams."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.transducer.encoder import padding_mask, zero_padding


class ConvSubsampling(nn.Module):
    """Apply two 3x3 convolutions of stride 2 over (time, mel), and a linear layer to ``dim``.

    Frames past the end are set to zero before each convolution. So the last frame of an utterance
    sees zeros in any batch, like the convolution's own padding of a single utterance. An utterance
    of at least one frame gives at least one output: ``ceil(ceil(T / 2) / 2)``.

    Few channels are enough and make this layer fast. Its cost grows with the product of the
    channels. With 64 channels each, the layer would take a third of a small model's time on a CPU.
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
        """Return the number of output frames of utterances with ``x_lens`` frames."""
        return _half(_half(x_lens))

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Subsample whole utterances.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,).

        Returns:
            Outputs (B, ceil(T / 4), dim) and their lengths (B,).
        """
        x = zero_padding(x, x_lens).unsqueeze(1)  # (B, 1, T, F)
        x = F.silu(self.conv1(x))  # (B, C1, T/2, F/2)
        # masked in this layout: a transposed tensor would make the next convolution copy
        x = x.masked_fill(padding_mask(_half(x_lens), x.size(2))[:, None, :, None], 0.0)
        x = F.silu(self.conv2(x))  # (B, C2, T/4, F/4)
        x = self.out(x.transpose(1, 2).flatten(2))
        return self.dropout(self.norm(x)), self.output_lengths(x_lens)


class StreamSubsampling(ConvSubsampling):
    """Subsample a piece of a stream. An output sees its 4 frames and the 3 next frames.

    No frame of an earlier piece is needed. The convolutions add no padding along time.
    """

    lookahead = 3  # frames

    def __init__(self, num_features: int, dim: int, channels: Sequence[int], dropout: float):
        super().__init__(num_features, dim, channels, dropout)
        self.conv1.padding = self.conv2.padding = (0, 1)  # of (time, mel)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # no lengths in a stream
        """Subsample a piece: ``x`` (B, 4 n + 3, num_features) -> (B, n, dim)."""
        x = F.silu(self.conv1(x.unsqueeze(1)))
        x = F.silu(self.conv2(x))
        x = self.out(x.transpose(1, 2).flatten(2))
        return self.dropout(self.norm(x))


def _half(length):
    """Return the length after a convolution of kernel 3, stride 2, padding 1: half, rounded up."""
    return (length + 1) // 2
