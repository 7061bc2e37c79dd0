"""Tell whether two manifest entries of one id have the same audio.

Ids of other people's manifests are often names of files, and two folders may hold one name each.
Every place that joins entries by such an id compares their audio with these functions first.
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

OVERLAP = 0.5  # share of the shorter of two spans that makes them the same utterance
LENGTH_OFF = 0.1  # seconds that two lengths of one utterance may differ

Recording = dict[str, Any]  # a recording of a manifest


@dataclass(frozen=True)
class AudioSpan:
    """The audio of an utterance: its file or features, its part of them, and its channel."""

    audio: str = ""  # the files that samples are read from; empty: there are features alone
    start: float = 0.0  # seconds
    end: float = 0.0  # seconds
    channel: int = 0
    features: bytes = b""  # their manifest entry, where there is no audio
    changes: str = ""  # of speed and the like, which the recording says to make

    def differs(self, other: "AudioSpan", whole: bool = False) -> str:
        """Return how the audio of another utterance differs, in words; empty if it does not.

        Args:
            other: The audio of the other utterance.
            whole: Compare the files alone, since one of the two is a copy of changed speed.
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
    """Return the audio of a cut, which is given as its manifest entry."""
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
    from lhotse import Features  # takes seconds, and is seldom needed

    try:
        return Features.from_dict(json.loads(features)).load()
    except MemoryError:
        raise
    except Exception:  # each storage type has errors of its own
        return None


def digest_of(recording: Recording) -> bytes:
    """Return a digest of all that decides which samples a recording yields, without its id."""
    content = [recording.get(key) for key in ("sources", "sampling_rate", "num_samples")]
    content.append(recording.get("transforms") or None)
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def describe(recording: Recording) -> str:
    """Return the source of a recording, its rate and its length, for a message."""
    rate, count = recording.get("sampling_rate"), recording.get("num_samples")
    changed = ", transformed" if recording.get("transforms") else ""
    return f"{source_of(recording) or 'no source'} ({rate} Hz, {count} samples{changed})"


def read_recordings(path: Path, made_by: str) -> dict[str, bytes]:
    """Return the lines of a manifest of recordings by their ids.

    Entries that list channels of the same file become one entry with all these channels.

    Args:
        path: The manifest, ``.jsonl.gz``.
        made_by: What makes the manifest, for a message.

    Raises:
        UserError: The manifest is missing or damaged, or two entries have one id and other audio.
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
    """Return the recording that holds the channels of two of one id; None if they are different."""
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
            return None  # the channels' order says which row of the file each one is
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
    """Ids that stand for one thing each: the second thing of an id gets another id.

    The first thing keeps the id, the next ones get ``-2``, ``-3``, … behind it.
    """

    def __init__(self) -> None:
        self._things: dict[str, bytes] = {}  # id -> digest of the thing that has it
        self._others: dict[tuple[str, bytes], str] = {}  # (given id, digest) -> own id
        self._counts: dict[str, int] = {}  # given id -> last number behind it

    def own(self, ident: str, thing: bytes) -> str:
        """Return the id of a thing; always the same one for the same thing.

        Args:
            ident: The id that it was given.
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
