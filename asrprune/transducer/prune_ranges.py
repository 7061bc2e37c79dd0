"""Which symbol positions the pruned loss keeps at each frame: a band through the lattice.

Source: Kuang et al. 2022 (arXiv 2206.13236), section 2.3, with the details of k2.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from asrprune.transducer.lattice import MINUS_INFINITY, Occupations


class PruneRanges(NamedTuple):
    """At frame t, utterance b keeps positions ``starts[b, t] ... starts[b, t] + widths[b] - 1``."""

    starts: Tensor  # (B, T) int64
    widths: Tensor  # (B,) int64

    def positions(self) -> Tensor:
        """(B, T, W) int64, W the greatest width: positions kept, and beyond a lesser width more."""
        offsets = torch.arange(int(self.widths.max()), device=self.starts.device)
        return self.starts[:, :, None] + offsets


def prune_ranges(
    occupations: Occupations, t_lens: Tensor, y_lens: Tensor, prune_range: int, modified: bool
) -> PruneRanges:
    """The bands that lose the least probability: non-decreasing, without gaps, from start to end.

    Args:
        occupations: of the simple loss, px (B, S, T) and py (B, S + 1, T).
        t_lens: (B,) int64 frames.
        y_lens: (B,) int64 symbols.
        prune_range: positions to keep at each frame.
        modified: the topology in which a frame emits at most one symbol.
    """
    widths = range_widths(t_lens, y_lens, prune_range)
    last_start = (y_lens + 1 - widths)[:, None]  # the band then ends with the transcript
    starts = start_scores(occupations, y_lens, widths).argmax(dim=1)
    frames = torch.arange(starts.shape[1], device=starts.device)
    starts = torch.where(frames < t_lens[:, None] - 1, starts, last_start)
    growth = torch.ones_like(widths) if modified else widths - 1
    return PruneRanges(_without_gaps(starts, growth[:, None]), widths)


def range_widths(t_lens: Tensor, y_lens: Tensor, prune_range: int) -> Tensor:
    """(B,) positions kept per frame: ``prune_range``, less for short transcripts, more where the
    band would not reach the end in time (``(R - 1) * T_b + 1 >= S_b + 1``). Each utterance has its
    own, so that its loss does not depend on its batch.
    """
    frames = t_lens.clamp(min=1)
    least = (y_lens + frames - 1) // frames + 1
    return torch.minimum(least.clamp(min=prune_range), y_lens + 1)


def start_scores(occupations: Occupations, y_lens: Tensor, widths: Tensor) -> Tensor:
    """(B, S + 1, T): what a band that starts at s holds, less what arrives from below it.

    Blank occupations of s ... s + R - 1 minus the symbol occupation that enters s; minus infinity
    where the band would pass the end of the transcript.
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
    """(B, T) starts made to begin at 0, never to fall, and to grow by ``growth`` (B, 1) at most.

    Bounded growth of s is monotony of ``growth * t - s``; both use a running minimum from the
    right, which leaves the last value as it is.
    """
    ramp = growth * torch.arange(starts.shape[1], device=starts.device)
    slack = _running_minimum_from_right(ramp - _running_minimum_from_right(starts))
    return ramp - slack.clamp(min=0)


def _running_minimum_from_right(x: Tensor) -> Tensor:
    return x.flip(1).cummin(dim=1).values.flip(1)
