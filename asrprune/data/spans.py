"""Find out which frames of stored features a cut reads, and whether all these frames are stored.

Features may begin before their cut and end after it, as the features of a whole recording do. If
features begin one frame late or end up to two frames early, the frame at that end is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lhotse.utils import compute_num_frames

START_OFF = 1  # frames that features may begin after their cut
END_OFF = 2  # frames that features may end before their cut, as Kaldi's (snip_edges=true) do


@dataclass(frozen=True)
class Span:
    """The frames ``first`` to ``first + count - 1`` that a cut reads, of stored frames from 0."""

    first: int  # negative: the features begin after the cut
    count: int  # frames of the cut
    stored: int  # stored frames

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
        """Whether repeated frames can replace all missing frames."""
        return self.before <= START_OFF and self.after <= END_OFF and self.present > 0

    @property
    def present(self) -> int:
        """Frames of the cut that are stored."""
        return self.count - self.before - self.after

    @property
    def whole(self) -> bool:
        """Whether the cut reads all stored frames."""
        return self.first <= 0 and self.first + self.count >= self.stored


def span_of(cut: Mapping[str, Any]) -> Span:
    """Return the frames that a cut reads.

    Args:
        cut: A manifest entry with ``start``, ``duration`` and ``features``.
    """
    features = cut["features"]
    shift, rate = features["frame_shift"], features["sampling_rate"]
    return Span(
        first=compute_num_frames(cut["start"] - features["start"], shift, rate),
        count=compute_num_frames(cut["duration"], shift, rate),
        stored=features["num_frames"],
    )


def misplaced(cut: Mapping[str, Any]) -> str:
    """Return why the features of a cut do not cover the cut.

    Args:
        cut: A manifest entry with ``start``, ``duration`` and ``features``.

    Returns:
        The times of the cut and of its features; empty if the features cover the cut.
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
