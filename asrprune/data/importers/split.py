"""Import one split: report or leave out bad utterances, and write the other utterances.

The outputs are ``<corpus>_recordings_<split>.jsonl.gz`` and
``<corpus>_supervisions_<split>.jsonl.gz``. If utterances were left out,
``<corpus>_left_out_<split>.tsv`` lists them with the reasons.
"""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.files import write_text
from asrprune.data.diagnosis import AGAIN, UNUSABLE, Unusable
from asrprune.data.header import read_header
from asrprune.data.importers.claims import Claims, Used
from asrprune.data.importers.paths import command_refused
from asrprune.data.importers.times import resolve
from asrprune.data.importers.utterance import EMPTY, Utterance, clean, id_of
from asrprune.data.invisible import Tally, invisible_in, is_empty, names_of, strip
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.names import explain_missing
from asrprune.data.parallel import progress_bar, run_parts
from asrprune.data.sources import AudioSpan, audio_span, digest_of

PART = 500  # number of files whose headers a worker reads at a time
BAD_AUDIO = {
    "missing-audio": "the file does not exist",
    **UNUSABLE,
    "outside": "the utterance starts after the end of the file",
    "no-channel": "the file has no such channel",
    "too-short": "the utterance is shorter than the window of a feature frame, 25 ms",
}
SHORTEST = 0.025  # seconds of an utterance
NO_SAMPLES = f"{AGAIN}, or delete its line"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Options of all importers; see ``asrprune manifests --help``."""

    corpus: str
    out_dir: Path
    bad_audio: str = "error"
    empty_text: str = "skip"
    longest: float = 300.0  # maximum seconds of an utterance
    invisible: str = "strip"  # a choice of invisible.CHOICES
    audio_dir: Path | None = None
    jobs: int = 1
    claims: Claims = field(default_factory=Claims)  # ids of the splits that were written

    def path(self, kind: str, split: str) -> Path:
        """Return the path of a manifest; ``kind`` is recordings, supervisions or cuts."""
        return self.out_dir / f"{self.corpus}_{kind}_{split}.jsonl.gz"


@dataclass(frozen=True)
class Entry:
    """The manifest entries of an utterance, as in lhotse; or the reason to leave it out."""

    where: str
    id: str
    recording: dict[str, Any] = field(default_factory=dict)
    supervision: dict[str, Any] = field(default_factory=dict)
    cut: dict[str, Any] = field(default_factory=dict)  # only if the cut's features are used
    reason: str = ""  # why the utterance is left out; empty: it is used
    detail: str = ""
    loose: bool = False  # the id may be changed, if different audio has the same id
    mend: str = ""  # what the user can do


@dataclass(frozen=True)
class Audio:
    """The header of an audio file, or why the file cannot be used."""

    rate: int = 0  # Hz
    frames: int = 0  # samples of each channel
    channels: int = 0
    reason: str = ""  # empty: the file can be used
    detail: str = ""
    mend: str = ""  # what the user can do


def write_utterances(
    options: Options, split: str, utterances: Iterable[Utterance], cut: str
) -> None:
    """Write the manifests of a split whose audio files have not been read yet.

    Args:
        options: The options of all importers.
        split: The name of the split.
        utterances: The utterances of the split.
        cut: How the user can give the start and end of utterances, for a message.

    Raises:
        UserError: See :func:`write_entries`.
    """
    known = list(utterances)
    paths = list(dict.fromkeys(u.path for u in known if not u.left_out))
    parts = [paths[start : start + PART] for start in range(0, len(paths), PART)]
    jobs = min(options.jobs, -(-len(parts) // 4))  # starting a process takes seconds
    audio: dict[str, Audio] = {}
    with progress_bar(len(paths), f"audio of {split}", "file") as bar:
        for part, found in run_parts(probe_all, parts, jobs, bar):
            audio.update(zip(part, found, strict=True))
    known = resolve(known, audio, split)
    several = sum(a.channels > 1 for a in audio.values())
    if several and any(u.channel is None for u in known if not u.left_out):
        log.warning(
            "%s: %d files have several channels; the first is taken where no column 'channel' "
            "says another",
            split,
            several,
        )
    write_entries(options, split, (entry(u, audio.get(u.path, Audio())) for u in known), cut)


def probe_all(paths: list[str], advance: Callable[[int], None]) -> list[Audio]:
    """Read the headers of files. This function is the work of one process."""
    found = []
    for path in paths:
        found.append(probe(path))
        advance(1)
    return found


def probe(path: str) -> Audio:
    """Return the header of a file, or why the file cannot be used."""
    if not os.path.exists(path):
        return Audio(reason="missing-audio", detail=explain_missing(path))
    try:
        found = read_header(path)
        rate, frames, channels = found.rate, found.frames, found.channels
    except Unusable as error:
        problem = Audio(reason=error.reason, detail=str(error), mend=error.mend)
        if error.reason not in ("other-format", "undecodable"):
            return problem
        import lhotse

        try:  # lhotse may decode more formats: m4a, for example, if ffmpeg is installed
            other = lhotse.Recording.from_file(path)
            middle = other.duration / 2  # stage 2 may also start to read in the middle
            other.load_audio(offset=middle, duration=min(0.1, middle))
            rate, frames, channels = other.sampling_rate, other.num_samples, other.num_channels
        except MemoryError:
            raise
        except Exception:  # the decoders' errors have no common class, and are long
            return problem
    if frames <= 0:
        return Audio(reason="undecodable", detail=f"{path}, no samples", mend=NO_SAMPLES)
    return Audio(rate, frames, channels)


def entry(utterance: Utterance, audio: Audio) -> Entry:
    """Return the manifest entries of an utterance, or the reason to leave it out."""
    where, name = utterance.where, utterance.id
    if utterance.left_out:
        return Entry(where, name, reason=utterance.left_out, detail=clean(utterance.text))
    if audio.reason:
        return Entry(where, name, reason=audio.reason, detail=audio.detail, mend=audio.mend)
    length = audio.frames / audio.rate
    if utterance.start >= length:
        detail = (
            f"{utterance.start:g} s, {utterance.path}: {length:.3f} s; if the times are no "
            "seconds, say their unit in the columns' names, such as start_ms or start_samples"
        )
        return Entry(where, name, reason="outside", detail=detail)
    if (utterance.channel or 0) >= audio.channels:
        detail = f"{utterance.channel}, {utterance.path}: {audio.channels}"
        return Entry(where, name, reason="no-channel", detail=detail)
    duration = length - utterance.start if utterance.duration is None else utterance.duration
    if duration < SHORTEST:
        detail = f"{duration:g} s, {utterance.path}"
        return Entry(where, name, reason="too-short", detail=detail, mend="Delete its line")
    # a duration that was rounded still means the whole file
    if not utterance.start and abs(duration - length) < 0.01:
        duration = length
    channels = list(range(audio.channels))
    recording = {
        "id": utterance.path,
        "sources": [{"type": "file", "channels": channels, "source": utterance.path}],
        "sampling_rate": audio.rate,
        "num_samples": audio.frames,
        "duration": length,
        "channel_ids": channels,
    }
    supervision = {
        "id": name,
        "recording_id": utterance.path,
        "start": utterance.start,
        "duration": round(duration, 8),
        "channel": utterance.channel or 0,
        "text": utterance.text,
    }
    for key, value in (("language", utterance.language), ("speaker", utterance.speaker)):
        if value:
            supervision[key] = value
    return Entry(where, name, recording, supervision, loose=not utterance.named)


def write_entries(
    options: Options, split: str, entries: Iterable[Entry], cut: str, with_cuts: bool = False
) -> None:
    """Write the manifests of a split with texts in NFC, and list the entries that are left out.

    Args:
        options: The options of all importers.
        split: The name of the split.
        entries: The entries of the split.
        cut: How the user can give the start and end of utterances, for a message.
        with_cuts: Also write ``<corpus>_cuts_<split>.jsonl.gz``, which stage 2 uses as it is.

    Raises:
        UserError: An id comes twice and must not be changed; an utterance is too long; audio is bad
            or a text is empty, and the options do not skip it; or no utterance is left.
    """
    options.path("cuts", split).unlink(missing_ok=True)  # left by another importer
    counted = Counted(options, split, cut)
    recorded: set[str] = set()
    seconds = 0.0
    with ExitStack() as files:
        kinds = ("recordings", "supervisions", *(("cuts",) if with_cuts else ()))
        out = {k: files.enter_context(write_lines(options.path(k, split))) for k in kinds}
        for good in counted.good(entries):
            if good.recording and good.recording["id"] not in recorded:
                recorded.add(good.recording["id"])
                out["recordings"].write(to_line(good.recording))
            out["supervisions"].write(to_line(good.supervision))
            if with_cuts:
                same = ("id", "recording_id", "text")
                good.cut["supervisions"][0] |= {key: good.supervision[key] for key in same}
                out["cuts"].write(to_line(good.cut))
            seconds += good.supervision["duration"]
        counted.judge()
    counted.say_renamed()
    counted.invisible.warn(log, split)
    counted.list_left_out()
    log.info("%s: %d utterances, %.2f h", split, counted.kept, seconds / 3600)


class Renamed:
    """Ids that were changed, with the first change as an example."""

    def __init__(self) -> None:
        self.ids: set[str] = set()  # the new ids
        self.example: tuple[str, str, AudioSpan] = ("", "", AudioSpan())

    def note(self, old: str, new: str, span: AudioSpan) -> None:
        """Note a new id, if it differs from the old id."""
        if new != old:
            if not self.ids:
                self.example = (old, new, span)
            self.ids.add(new)


class Counted:
    """Filter of the entries of a split: good entries pass, and the others are collected."""

    def __init__(self, options: Options, split: str, cut: str):
        self.options, self.split, self.cut = options, split, cut
        self.left_out: list[Entry] = []
        self.renamed = {"utterances": Renamed(), "recordings": Renamed()}
        self.kept = 0
        self.invisible = Tally(options.invisible)

    def good(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield the entries to write.

        Raises:
            UserError: An id comes twice and must not be changed, an utterance is too long, or an
                entry is invalid.
        """
        places: dict[str, str] = {}  # id of an entry that is left out -> its position
        for item in entries:
            item = self._judged(item)
            if item.reason:
                places[item.id] = item.where
                self.left_out.append(item)
                continue
            if item.id in places and not item.loose:
                raise UserError(
                    f"{item.where}: the id {item.id!r} is that of {places[item.id]} too; every "
                    "utterance needs one of its own"
                )
            self.kept += 1
            yield self._with_own_ids(item)

    def _judged(self, item: Entry) -> Entry:
        if item.reason:
            return item
        for source in item.recording.get("sources") or []:
            if source.get("type") == "command":
                raise command_refused(str(source.get("source")), f"{item.where}: {item.id}")
        item.supervision["id"] = item.id
        if item.recording:
            ident = id_of(item.recording["id"], item.where)
            item.recording["id"] = item.supervision["recording_id"] = ident
        if not isinstance(item.supervision.get("duration"), int | float):
            raise UserError(f"{item.where}: the supervision of {item.id} has no duration")
        raw = item.supervision.get("text") or ""
        self.invisible.add(raw, f"{item.id} ({item.where})")
        if is_empty(raw):
            names = names_of(invisible_in(raw))
            detail = f"nothing but {names}" if names else "no word"
            return Entry(item.where, item.id, reason=EMPTY, detail=detail)
        item.supervision["text"] = clean(strip(raw, self.options.invisible))
        if (seconds := item.supervision["duration"]) > self.options.longest:
            raise UserError(
                f"{item.where}: {item.id} is one utterance of {seconds:.0f} s, and "
                f"{self.options.longest:g} s are the most that is trained on or decoded at a time. "
                f"Say where its utterances are ({self.cut}), or raise --longest"
            )
        return item

    def _with_own_ids(self, item: Entry) -> Entry:
        """Return the entry with ids of the utterance and recording that no other audio has."""
        claims, recording, supervision = self.options.claims, item.recording, item.supervision
        span = audio_span({**supervision, "recording": recording, **item.cut})
        claim = Used(self.split, item.where, span)
        ident = claims.utterance(item.id, claim, item.loose)
        self.renamed["utterances"].note(item.id, ident, span)
        supervision["id"] = ident
        if item.cut:
            item.cut["id"] = ident
        if recording:
            own = claims.recordings.own(recording["id"], digest_of(recording))
            self.renamed["recordings"].note(recording["id"], own, span)
            recording["id"] = supervision["recording_id"] = own
            if item.cut:
                item.cut["features"]["recording_id"] = own
        return replace(item, id=ident)

    def say_renamed(self) -> None:
        """Log which ids were changed, because other audio has the same ids."""
        for what, renamed in self.renamed.items():
            if renamed.ids:
                old, new, span = renamed.example
                log.info(
                    "%s: %d %s had the id of another one with other audio and got ids of their "
                    "own: %r of %s is now %r, and so on. The audio stays what it was",
                    self.split,
                    len(renamed.ids),
                    what,
                    old,
                    span.audio or span,
                    new,
                )

    def judge(self) -> None:
        """Check, after the last entry, that the split can be used.

        Raises:
            UserError: Utterances with bad audio or without text were left out, and the options
                make that an error; or no utterance is left.
        """
        total = self.kept + len(self.left_out)
        bad = [item for item in self.left_out if item.reason in BAD_AUDIO]
        empty = [item for item in self.left_out if item.reason == EMPTY]
        if bad and self.options.bad_audio == "error":
            first = bad[0]
            raise UserError(
                f"{first.where}: {BAD_AUDIO[first.reason]} ({first.detail}); so it is with "
                f"{len(bad)} of {total} utterances of {self.split} ({reasons(bad)}). "
                f"{first.mend or 'Mend them'}; or leave them out with --bad-audio skip"
            )
        if empty and self.options.empty_text == "error":
            raise UserError(
                f"{empty[0].where}: {empty[0].id} has no text; {len(empty)} of {total} utterances "
                f"of {self.split} have none. Add it, or leave them out with --empty-text skip"
            )
        if not self.kept:
            why = f" of {total} ({reasons(self.left_out)})" if total else ""
            raise UserError(f"{self.split}: no utterance is left{why}")

    def list_left_out(self) -> None:
        """Write the list of the utterances that were left out, and log their number."""
        path = self.options.out_dir / f"{self.options.corpus}_left_out_{self.split}.tsv"
        if not self.left_out:
            path.unlink(missing_ok=True)  # left by an earlier run
            return
        rows = ["utterance\twhere\treason\tdetail"]
        fields = ((i.id, i.where, i.reason, i.detail) for i in self.left_out)
        rows += ["\t".join(" ".join(field.split()) for field in row) for row in fields]
        write_text(path, "\n".join(rows) + "\n")
        total = self.kept + len(self.left_out)
        log.warning(
            "%s: %d of %d utterances left out (%s); if it is a test set, that changes its error "
            "rates. %s lists them",
            self.split,
            len(self.left_out),
            total,
            reasons(self.left_out),
            path,
        )


def reasons(left_out: Iterable[Entry]) -> str:
    """Return the number of entries for each reason, the most frequent first, for a message."""
    counts = Counter(item.reason for item in left_out)
    return ", ".join(f"{reason}: {count}" for reason, count in counts.most_common())
