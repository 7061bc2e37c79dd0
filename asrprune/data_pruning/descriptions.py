"""Describe cuts for an index: from lhotse cuts, or from the entries of a manifest."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from asrprune.base.errors import UserError

_FRAME_SHIFT, _SAMPLING_RATE = 0.01, 16000  # seconds and Hz, where cuts do not give them


class Description(NamedTuple):
    """What an index needs to know of a cut."""

    id: str
    duration: float  # seconds
    language: str  # "" where the cut has none; the same for speaker and corpus
    speaker: str
    corpus: str
    num_frames: int  # feature frames
    text: str  # the transcript


def transcript(cut: Any) -> str:
    """Return the text of all supervisions of a cut, in order of time."""
    return _joined(cut.supervisions)


def _joined(spoken: Sequence[Any]) -> str:
    if len(spoken) > 1:
        spoken = sorted(spoken, key=lambda segment: segment.start)
    return " ".join(segment.text for segment in spoken if segment.text)


def describe_cut(cut: Any) -> Description:
    """Describe a lhotse cut.

    Language and speaker are those of its first supervision. The corpus is its custom field
    ``corpus``. For a mixed cut this field is that of the first track that is not muted.
    """
    tracks = getattr(cut, "tracks", None) or []
    heard = next((track for track in tracks if not getattr(track, "mute", False)), None)
    custom = (heard.cut if heard else tracks[0].cut if tracks else cut).custom
    supervisions = cut.supervisions
    supervision = next(iter(supervisions), None)
    has_rate = cut.has_features or cut.has_recording
    return Description(
        cut.id,
        cut.duration,
        (supervision and supervision.language) or "",
        (supervision and supervision.speaker) or "",
        str((custom or {}).get("corpus", "")),
        _num_frames(
            cut.duration,
            cut.frame_shift or _FRAME_SHIFT,
            cut.sampling_rate if has_rate else _SAMPLING_RATE,
        ),
        _joined(supervisions),
    )


def _num_frames(duration: float, frame_shift: float, sampling_rate: int) -> int:
    """Return the number of feature frames of a cut, as lhotse counts."""
    hop = max(1, round(frame_shift * sampling_rate))
    samples = round(duration * sampling_rate) if 0 < duration < 1e6 else 0
    return (samples + hop // 2) // hop


def describe_entry(entry: dict[str, Any]) -> Description:
    """Describe a cut by its entry in a manifest. Each track of a mixed cut's entry has a cut."""
    tracks = entry.get("tracks") or [{"cut": entry}]
    tracks = [track for track in tracks if not track.get("mute")] or tracks
    parts = [track["cut"] for track in tracks]
    offsets = [track.get("offset", 0.0) for track in tracks]
    duration = max(map(_end, offsets, parts))
    if "tracks" in entry:
        duration = round(duration, ndigits=8)  # as lhotse does, for mixed cuts only
    spoken = [
        (offset + (segment.get("start") or 0.0), segment)
        for offset, part in zip(offsets, parts, strict=True)
        for segment in part.get("supervisions") or []
    ]
    first = spoken[0][1] if spoken else {}
    if len(spoken) > 1:
        spoken.sort(key=lambda timed: timed[0])
    of = next((part for part in parts if part.get("type") != "PaddingCut"), parts[0])
    source = of.get("features") or of.get("recording") or {}
    return Description(
        entry["id"],
        duration,
        first.get("language") or "",
        first.get("speaker") or "",
        str((parts[0].get("custom") or {}).get("corpus", "")),
        _num_frames(
            duration,
            source.get("frame_shift") or _FRAME_SHIFT,
            source.get("sampling_rate") or _SAMPLING_RATE,
        ),
        " ".join(segment["text"] for _, segment in spoken if segment.get("text")),
    )


def _end(offset: float, part: dict[str, Any]) -> float:
    return offset + part["duration"]


def in_fixed_order(cuts: Iterable[Any]) -> Iterable[Any]:
    """Return cuts in an order that is the same at each pass.

    Raises:
        UserError: a CutSet has no end, or its order cannot be repeated.
    """
    if not getattr(cuts, "is_lazy", False):
        return cuts
    from asrprune.data_pruning.sources import check_source, read_in_order  # needs lhotse

    check_source(cuts)
    return chain.from_iterable(read_in_order(cuts, seed=0, epoch=0))


def describe_lines(path: Path) -> Iterator[Description]:
    """Describe the cuts of a JSONL manifest, plain or compressed with gzip.

    Raises:
        UserError: the file does not exist or is damaged, or a line is not a cut.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield describe_entry(json.loads(line))
                    except (ValueError, TypeError, LookupError, AttributeError) as error:
                        raise UserError(
                            f"{path}, line {number}: not a lhotse cut ({error!r}). Give a manifest "
                            "of cuts."
                        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. Check the path of the manifest.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error}). Make it again.") from error
