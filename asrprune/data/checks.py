"""What makes a cut unfit: one reason each, found in its manifest line or in its features.

*Filters* are wanted selections, such as limits on the duration. *Left out* is what a file of the
user names. What is *held out* is for testing. *Defects* are mistakes of the corpus, or of the disk.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Features

from asrprune.base.errors import UserError
from asrprune.data.features import read_span
from asrprune.data.invisible import is_empty
from asrprune.data.lengths import encoder_frames, least_tokens
from asrprune.data.spans import Span, misplaced, span_of

# reason -> what it says; the order is that of the checks
FILTERS = {
    "too-short": "shorter than --min-seconds",
    "too-long": "longer than --max-seconds",
    "dropped-text": "transcripts of nothing but --drop-words",
    "unreadable-audio": "left out by stage 2 (--bad-audio skip)",
}
LEFT_OUT = {"left-out": "named by --leave-out"}
HELD_OUT = {"held-out": "a cut of an evaluation set too"}
DEFECTS = {
    "duplicate-id": "the id of an earlier cut",
    "id-taken": "the id of an evaluation cut, which has other audio",
    "supervisions": "not exactly one supervision",
    "duration": "no positive duration",
    "empty-text": "an empty transcript",
    "cut-outside": "the cut reaches beyond its recording",
    "supervision-outside": "the supervision reaches beyond its cut or the recording",
    "no-features": "no features",
    "frames": "the features do not cover the cut",
    "too-few-frames": "fewer encoder frames than tokens",
    "unreadable-features": "features that cannot be read",
    "not-finite": "features that are no finite numbers",
}
# seconds that a cut may reach beyond its recording, and a supervision beyond its cut
TOLERANCE = 0.025
# defects that lie in the feature archives: computing these again mends them
OF_FEATURES = ("frames", "unreadable-features", "not-finite")
COMPUTE_ANEW = (
    "These features came with the cuts and stay as they are: mend them, or have others computed "
    "from the recordings with --ignore-features true (of run.sh, stage 1)"
)


@dataclass
class Checked:
    """A cut on its way through the checks: its line, what statistics need, and the verdict."""

    split: str
    line: bytes
    id: str
    duration: float = 0.0
    text: str = ""
    speaker: str = ""
    language: str = ""
    features: dict[str, Any] | None = None
    span: Span | None = None  # the frames of them that training reads
    archives: str = ""  # the folder of those that stage 2 makes of the split
    dropped: bool = False  # whether --drop-words has left words out of the text
    reason: str = ""  # empty: valid
    detail: str = ""
    doubt: str = ""  # what is strange about a cut that is kept

    def reject(self, reason: str, detail: str) -> "Checked":
        """Give the verdict; the first one counts."""
        if not self.reason:
            self.reason, self.detail = reason, " ".join(detail.split())
        return self

    @property
    def given(self) -> bool:
        """Whether its features are somebody's own, which came with the cuts."""
        folder = os.path.dirname(self.features["storage_path"]) if self.features else ""
        return bool(folder) and os.path.realpath(folder) != os.path.realpath(self.archives)


@dataclass
class Limits:
    """What lengths a cut may have."""

    min_seconds: float = 0.0  # seconds
    max_seconds: float = math.inf
    subsampling: int = 4  # feature frames per encoder frame
    long_texts: bool = False  # whether a cut may have more tokens than encoder frames


def check_manifest(checked: Checked, cut: dict[str, Any], limits: Limits) -> Checked:
    """Fill in ``checked`` from the manifest entry of its cut, and check all that this tells."""
    supervisions = cut.get("supervisions") or []
    if len(supervisions) != 1:
        return checked.reject("supervisions", f"{len(supervisions)} supervisions")
    supervision = supervisions[0]
    checked.text = " ".join((supervision.get("text") or "").split())
    checked.speaker = str(supervision.get("speaker") or "")
    checked.language = str(supervision.get("language") or "")
    duration = cut.get("duration")
    for name, seconds in (("cut", duration), ("supervision", supervision.get("duration"))):
        if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            return checked.reject("duration", f"the {name} has {seconds} s")
    checked.duration = float(duration)
    if is_empty(checked.text):
        reason = "dropped-text" if checked.dropped else "empty-text"
        return checked.reject(reason, "no word")
    if beyond := _beyond(cut["start"], duration, (cut.get("recording") or {}).get("duration")):
        return checked.reject("cut-outside", beyond)
    if beyond := _beyond(supervision["start"], supervision["duration"], duration):
        return checked.reject("supervision-outside", beyond)
    features = checked.features = cut.get("features")
    if not features:
        return checked.reject("no-features", "none in the manifest")
    if problem := misplaced(cut):
        return checked.reject("frames", f"{features['storage_path']}: {problem}")
    checked.span = span_of(cut)
    frames = encoder_frames(checked.span.count, limits.subsampling)
    if (tokens := least_tokens(checked.text)) > frames:
        detail = f"{frames} encoder frames, {tokens} tokens or more"
        if not limits.long_texts:
            return checked.reject("too-few-frames", detail)
        checked.doubt = detail
    if duration < limits.min_seconds:
        return checked.reject("too-short", f"{duration:.3f} s")
    if duration > limits.max_seconds:
        return checked.reject("too-long", f"{duration:.3f} s")
    return checked


def _beyond(start: float, duration: float, whole: float | None) -> str:
    """Say where a part is that its whole does not hold; empty: it does, or nobody knows."""
    end = start + duration
    if whole is None or (start >= -TOLERANCE and end <= whole + TOLERANCE):
        return ""
    return f"{start:.3f} to {end:.3f} of {whole:.3f} s"


@dataclass
class FeatureSums:
    """Per-bin sums over frames in float64; :meth:`add` joins those of two parts."""

    frames: int = 0
    total: np.ndarray | None = None  # (num_features,)
    squares: np.ndarray | None = None

    def add(self, other: "FeatureSums") -> None:
        """Add the sums of another part. The order of additions is the caller's, and fixed."""
        if other.total is None:
            return
        if self.total is None:
            self.frames, self.total, self.squares = other.frames, other.total, other.squares
            return
        self.frames += other.frames
        self.total = self.total + other.total
        self.squares = self.squares + other.squares

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Mean and (population) standard deviation of each bin; not less than 1e-5."""
        if self.total is None or self.squares is None:
            return [], []
        mean = self.total / self.frames
        variance = np.maximum(self.squares / self.frames - mean**2, 1e-10)
        return mean.tolist(), np.sqrt(variance).tolist()


@dataclass
class FeatureVerdicts:
    """What :func:`check_features` found in a part: ``verdicts`` are (index, reason, detail)."""

    verdicts: list[tuple[int, str, str]] = field(default_factory=list)
    sums: FeatureSums = field(default_factory=FeatureSums)


def check_features(part: list[Checked], advance: Callable[[int], None]) -> FeatureVerdicts:
    """Read the features of the cuts that are valid so far and sum them up.

    Raises:
        UserError: a whole archive is missing.
    """
    result = FeatureVerdicts()
    for index, checked in enumerate(part):
        advance(1)
        if checked.reason or checked.features is None or checked.span is None:
            continue
        reference = Features.from_dict(checked.features)
        if not Path(reference.storage_path).exists():
            mend = (
                COMPUTE_ANEW
                if checked.given
                else "If it was deleted, delete the split's <corpus>_cuts_<split>.jsonl.gz too and "
                "run stage 2 (features), which makes only what is missing"
            )
            raise UserError(
                f"the features of {checked.id} should be in {reference.storage_path}, which does "
                f"not exist (paths are relative to the folder that stage 2 ran in). {mend}"
            )
        try:
            matrix = read_span(reference, checked.span).astype(np.float64)
        except (MemoryError, ImportError):  # of a package that reads such features
            raise
        except Exception as error:  # lilcom, numpy and the file system have no common class
            detail = f"{reference.storage_path}: {error!r}"
            result.verdicts.append((index, "unreadable-features", detail))
            continue
        if matrix.shape != (checked.span.count, reference.num_features):
            detail = f"{reference.storage_path}: shape {matrix.shape}"
            result.verdicts.append((index, "unreadable-features", detail))
        elif not np.isfinite(matrix).all():
            result.verdicts.append((index, "not-finite", reference.storage_path))
        else:
            sums = FeatureSums(len(matrix), matrix.sum(axis=0), (matrix**2).sum(axis=0))
            result.sums.add(sums)
    return result
