"""Which frames of stored features a cut reads, and whether all of them are there.

Features may begin before their cut and end after it, as those of a whole recording do. Where they
begin a frame late, or end a few frames early, the frame at that end is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lhotse.utils import compute_num_frames

START_OFF = 1  # frames that features may begin after their cut
END_OFF = 2  # frames that they may end before it; Kaldi's (snip_edges=true) do


@dataclass(frozen=True)
class Span:
    """The frames ``first`` to ``first + count - 1`` of ``stored`` ones, which begin with 0."""

    first: int  # negative: the features begin after the cut
    count: int  # of the cut
    stored: int

    @property
    def before(self) -> int:
        """Frames of the cut that are missing at its start."""
        return min(max(-self.first, 0), self.count)

    @property
    def after(self) -> int:
        """Frames of the cut that are missing at its end."""
        return min(max(self.first + self.count - self.stored, 0), self.count)

    @property
    def fits(self) -> bool:
        """Whether nothing is missing that cannot be mended by repeating a frame."""
        return self.before <= START_OFF and self.after <= END_OFF and self.present > 0

    @property
    def present(self) -> int:
        """Frames of the cut that are stored."""
        return self.count - self.before - self.after

    @property
    def whole(self) -> bool:
        """Whether the cut reads all that is stored."""
        return self.first <= 0 and self.first + self.count >= self.stored


def span_of(cut: Mapping[str, Any]) -> Span:
    """Return the span of a cut, which is given as its manifest entry.

    Args:
        cut: An entry with ``start``, ``duration`` and ``features``.

    Returns:
        The frames that the cut reads.
    """
    features = cut["features"]
    shift, rate = features["frame_shift"], features["sampling_rate"]
    return Span(
        first=compute_num_frames(cut["start"] - features["start"], shift, rate),
        count=compute_num_frames(cut["duration"], shift, rate),
        stored=features["num_frames"],
    )


def misplaced(cut: Mapping[str, Any]) -> str:
    """Say why features cannot be read for their cut.

    Args:
        cut: As for :func:`span_of`.

    Returns:
        Where the cut is and where its features are. Empty: the features cover the cut.
    """
    features = cut["features"]
    shift, stored = features["frame_shift"], features["num_frames"]
    told = compute_num_frames(features["duration"], shift, features["sampling_rate"])
    if abs(stored - told) > END_OFF:
        return f"its features have {stored} frames for {features['duration']:g} s, not {told}"
    span = span_of(cut)
    if span.fits:
        return ""
    start, end = cut["start"], cut["start"] + cut["duration"]
    first = features["start"]
    return (
        f"the cut is from {start:.3f} to {end:.3f} s and its features from {first:.3f} to "
        f"{first + stored * shift:.3f} s ({span.before} frames missing at the start and "
        f"{span.after} at the end, of {span.count})"
    )
