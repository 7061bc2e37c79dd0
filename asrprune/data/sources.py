"""Find out whether two manifest entries with the same id have the same audio.

Ids of other people's manifests are often file names, and two folders may have files of the same
name. All code that joins entries by such an id first compares their audio with these functions.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.base.errors import UserError
from asrprune.data.manifests import parse_line, read_lines, same_audio, source_of, to_line

OVERLAP = 0.5  # two spans that overlap by this share of the shorter span are the same utterance
LENGTH_OFF = 0.1  # seconds by which two lengths of the same utterance may differ

Recording = dict[str, Any]  # manifest entry of a recording


@dataclass(frozen=True)
class AudioSpan:
    """The audio of an utterance: a file or features, with start, end and channel."""

    audio: str = ""  # the files of the samples; empty: there are only features
    start: float = 0.0  # seconds
    end: float = 0.0  # seconds
    channel: int = 0
    features: bytes = b""  # manifest entry of the features, if there is no audio
    changes: str = ""  # transforms of the recording, such as another speed, as JSON

    def differs(self, other: "AudioSpan", whole: bool = False) -> str:
        """Return in words how the audio of another utterance differs; empty if it is the same.

        Args:
            other: The audio of the other utterance.
            whole: Compare only files and channels, because one utterance is a copy at another
                speed.
        """
        if whole and not (self.audio and other.audio):
            return ""
        if not (self.audio and other.audio):
            return self._features_differ(other)
        if not same_audio(self.audio, other.audio):
            return "another file"
        if self.channel != other.channel:
            return "another channel of the file"
        if whole:
            return ""
        shared = min(self.end, other.end) - max(self.start, other.start)
        shorter = min(self.end - self.start, other.end - other.start)
        return "another part of the file" if shared < OVERLAP * shorter else ""

    def _features_differ(self, other: "AudioSpan") -> str:
        if abs((self.end - self.start) - (other.end - other.start)) > LENGTH_OFF:
            return "audio of another length"
        if not (self.features and other.features) or self.features == other.features:
            return ""  # samples and features cannot be compared
        matrices = [_load(features) for features in (self.features, other.features)]
        if any(matrix is None for matrix in matrices):
            return "features of another archive"
        return "" if np.array_equal(*matrices) else "other features"

    def __str__(self) -> str:
        source = self.audio
        if not source and self.features:
            source = str(json.loads(self.features).get("storage_path"))
        return f"{source}, {self.start:.2f} to {self.end:.2f} s"


def audio_span(cut: Mapping[str, Any]) -> AudioSpan:
    """Return the audio of a cut, from the cut's manifest entry."""
    audio, features = source_of(cut.get("recording")), cut.get("features")
    channel = cut.get("channel") or 0
    start = cut.get("start") or 0.0
    return AudioSpan(
        audio=audio,
        start=start,
        end=start + (cut.get("duration") or 0.0),
        channel=channel[0] if isinstance(channel, list) else channel,
        features=b"" if audio or not features else to_line(features),
        changes=json.dumps((cut.get("recording") or {}).get("transforms") or "", default=str),
    )


def _load(features: bytes) -> np.ndarray | None:
    """Return the matrix of stored features; None if it cannot be read."""
    from lhotse import Features  # the import takes seconds, and is seldom needed

    try:
        return Features.from_dict(json.loads(features)).load()
    except MemoryError:
        raise
    except Exception:  # each storage type has errors of its own
        return None


def digest_of(recording: Recording) -> bytes:
    """Return a digest of everything that decides the samples of a recording, without its id."""
    content = [recording.get(key) for key in ("sources", "sampling_rate", "num_samples")]
    content.append(recording.get("transforms") or None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def describe(recording: Recording) -> str:
    """Return the source, sampling rate and length of a recording, for a message."""
    rate, count = recording.get("sampling_rate"), recording.get("num_samples")
    changed = ", transformed" if recording.get("transforms") else ""
    return f"{source_of(recording) or 'no source'} ({rate} Hz, {count} samples{changed})"


def read_recordings(path: Path, made_by: str) -> dict[str, bytes]:
    """Return the lines of a manifest of recordings, by recording id.

    Entries that list channels of the same file become one entry with all these channels.

    Args:
        path: The manifest, ``.jsonl.gz``.
        made_by: What makes the manifest, for a message.

    Raises:
        UserError: The manifest is missing or damaged, or two entries have the same id and
            different audio.
    """
    lines: dict[str, bytes] = {}
    for number, line in enumerate(read_lines(path, made_by), 1):
        recording = parse_line(line, path, number)
        ident = str(recording["id"])
        before = lines.setdefault(ident, line)
        if before == line:
            continue
        first = json.loads(before)
        joined = join(first, recording)
        if joined is None:
            raise UserError(
                f"{path}, line {number}: two recordings have the id {ident!r} and other audio: "
                f"{describe(first)} and {describe(recording)}. By such an id an utterance would "
                "get the audio of another one. Give each recording an id of its own; where ids "
                "are names of files, rename the files or prepare the folders one by one"
            )
        if joined != first:
            lines[ident] = to_line(joined)
    return lines


def join(first: Recording, second: Recording) -> Recording | None:
    """Join the channels of two recordings with the same id; return None if their audio differs."""
    for key in ("sampling_rate", "num_samples"):
        if first.get(key) != second.get(key):
            return None
    if (first.get("transforms") or None) != (second.get("transforms") or None):
        return None
    sources = [dict(source) for source in first.get("sources") or []]
    for source in second.get("sources") or []:
        mates = [old for old in sources if _same_source(old, source)]
        if not mates:
            sources.append(dict(source))
            continue
        one, other = list(mates[0].get("channels") or []), list(source.get("channels") or [])
        if one != other and (one != sorted(one) or other != sorted(other)):
            return None  # the order of channels says which row of the file each channel is
        mates[0]["channels"] = one if one == other else sorted({*one, *other})
    channels = [channel for source in sources for channel in source.get("channels") or []]
    if len(set(channels)) < len(channels):  # two files for one channel
        return None
    if sources == (first.get("sources") or []):
        return first
    return {**first, "sources": sources, "channel_ids": sorted(channels)}


def _same_source(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one.get("type") != other.get("type"):
        return False
    return same_audio(str(one.get("source")), str(other.get("source")))


class OwnIds:
    """Ids that stand for one thing each: a second thing with the same id gets another id.

    The first thing keeps the id. The ids of the next things end in ``-2``, ``-3``, ….
    """

    def __init__(self) -> None:
        self._things: dict[str, bytes] = {}  # id -> digest of the thing that has it
        self._others: dict[tuple[str, bytes], str] = {}  # (given id, digest) -> own id
        self._counts: dict[str, int] = {}  # given id -> last number that was appended

    def own(self, ident: str, thing: bytes) -> str:
        """Return the own id of a thing. The same thing always gets the same id.

        Args:
            ident: The id that the thing came with.
            thing: A digest of the thing.
        """
        if self._things.setdefault(ident, thing) == thing:
            return ident
        if (ident, thing) not in self._others:
            number = self._counts.get(ident, 1) + 1
            while f"{ident}-{number}" in self._things:
                number += 1
            self._counts[ident] = number
            own = self._others[ident, thing] = f"{ident}-{number}"
            self._things[own] = thing
        return self._others[ident, thing]
