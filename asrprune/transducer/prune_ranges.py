"""Choose the symbol positions that the pruned loss keeps at each frame: a band of the lattice.

Source: Kuang et al. 2022 (arXiv 2206.13236), section 2.3, with the details of k2.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from asrprune.transducer.lattice import MINUS_INFINITY, Occupations


class PruneRanges(NamedTuple):
    """Hold a band: at frame t, utterance b keeps ``widths[b]`` positions from ``starts[b, t]``."""

    starts: Tensor  # (B, T) int64
    widths: Tensor  # (B,) int64

    def positions(self) -> Tensor:
        """Return the kept positions (B, T, W) int64, where W is the greatest width.

        An utterance with a smaller width gets further positions after its band.
        """
        offsets = torch.arange(int(self.widths.max()), device=self.starts.device)
        return self.starts[:, :, None] + offsets


def prune_ranges(
    occupations: Occupations, t_lens: Tensor, y_lens: Tensor, prune_range: int, modified: bool
) -> PruneRanges:
    """Return the bands that lose the least probability.

    The starts of a band never decrease. A band has no gaps, and leads from the first position to
    the last.

    Args:
        occupations: occupations of the simple loss, px (B, S, T) and py (B, S + 1, T).
        t_lens: (B,) int64 frames.
        y_lens: (B,) int64 symbols.
        prune_range: positions to keep at each frame.
        modified: whether the topology allows at most one symbol a frame.
    """
    widths = range_widths(t_lens, y_lens, prune_range)
    last_start = (y_lens + 1 - widths)[:, None]  # a band that starts here ends with the transcript
    starts = start_scores(occupations, y_lens, widths).argmax(dim=1)
    frames = torch.arange(starts.shape[1], device=starts.device)
    starts = torch.where(frames < t_lens[:, None] - 1, starts, last_start)
    growth = torch.ones_like(widths) if modified else widths - 1
    return PruneRanges(_without_gaps(starts, growth[:, None]), widths)


def range_widths(t_lens: Tensor, y_lens: Tensor, prune_range: int) -> Tensor:
    """Return the number of positions kept at each frame, (B,).

    The number is ``prune_range``. It is smaller for short transcripts. It is larger if the band
    would not reach the end in time (``(R - 1) * T_b + 1 >= S_b + 1`` must hold). The number
    of an utterance, and so its loss, does not depend on the batch.
    """
    frames = t_lens.clamp(min=1)
    least = (y_lens + frames - 1) // frames + 1
    return torch.minimum(least.clamp(min=prune_range), y_lens + 1)


def start_scores(occupations: Occupations, y_lens: Tensor, widths: Tensor) -> Tensor:
    """Return the score of each start of a band: the probability in the band minus that entering it.

    The score is the sum of the blank occupations of s ... s + R - 1, minus the symbol occupation
    that enters s. The score is minus infinity if the band would pass the end of the transcript.

    Args:
        occupations: occupations of the simple loss, px (B, S, T) and py (B, S + 1, T).
        y_lens: (B,) int64 symbols.
        widths: (B,) int64 positions kept at each frame.

    Returns:
        Scores (B, S + 1, T).
    """
    px, py = occupations
    num_positions, width = py.shape[1], int(widths.max())
    scores = -functional.pad(px, (0, 0, 1, 0))  # px of position s - 1 enters s
    padded = functional.pad(py, (0, 0, 0, width - 1))
    for offset in range(width):
        kept = (offset < widths)[:, None, None]
        scores += padded[:, offset : offset + num_positions] * kept
    too_far = torch.arange(num_positions, device=py.device) > (y_lens + 1 - widths)[:, None]
    return scores.masked_fill_(too_far[:, :, None], MINUS_INFINITY)


def _without_gaps(starts: Tensor, growth: Tensor) -> Tensor:
    """Adjust starts (B, T): begin at 0, never decrease, increase by at most ``growth`` (B, 1).

    The growth of s is bounded if ``growth * t - s`` never decreases. Both conditions use a running
    minimum from the right, which keeps the last value.
    """
    ramp = growth * torch.arange(starts.shape[1], device=starts.device)
    slack = _running_minimum_from_right(ramp - _running_minimum_from_right(starts))
    return ramp - slack.clamp(min=0)


def _running_minimum_from_right(x: Tensor) -> Tensor:
    return x.flip(1).cummin(dim=1).values.flip(1)
