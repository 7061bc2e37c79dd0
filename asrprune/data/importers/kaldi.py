"""Read data directories of Kaldi: wav.scp, text, and optional segments, utt2spk and utt2lang.

lhotse's own reader is not used. It makes supervisions only from segments, opens the audio one file
at a time, silently leaves out what it cannot read, and runs the commands of wav.scp.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError
from asrprune.data.importers.paths import command_refused, find_base
from asrprune.data.importers.time_columns import END, START, TimeColumn, Times
from asrprune.data.importers.utterance import EMPTY, Utterance, utterance_of
from asrprune.data.names import explain_missing

CUT = "write a file segments (utterance, recording, start, end)"
SAME = {name: name for name in ("path", "text", "id", "speaker", "language", "channel")}
TIMES = (TimeColumn("start of the segment", START), TimeColumn("end of the segment", END))
MEND = "Segments are an utterance, a recording, its start and its end in seconds: write seconds"

Lines = dict[str, tuple[int, str]]  # first word -> (line number, rest of the line)


def read_data_dir(folder: Path, base: Path | None = None) -> Iterator[Utterance]:
    """Yield the utterances of ``text``, then the utterances without a line in ``text``.

    The utterances without a line in ``text`` are marked as left out.

    Args:
        folder: The data directory.
        base: What relative paths of wav.scp are relative to. None: the first folder that has the
            first file of wav.scp, among the working directory, the data directory and the folders
            above it.

    Raises:
        UserError: A file is missing, or a line is wrong. The message names the file and the line.
    """
    if not folder.is_dir():
        raise UserError(f"{explain_missing(folder)} is no folder, such as Kaldi's data/train")
    recordings = _read(folder / "wav.scp")
    for number, path in recordings.values():
        _refuse_commands(path, f"{folder / 'wav.scp'}, line {number}")
    texts = _read(folder / "text", values=False)
    segments = _read(folder / "segments", needed=False)
    speakers = _read(folder / "utt2spk", needed=False)
    languages = _read(folder / "utt2lang", needed=False)
    if base is None:
        base = find_base(folder, next(iter(recordings.values()))[1])
    for ident, (number, text) in texts.items():
        where = f"{folder / 'text'}, line {number}"
        row = {"id": ident, "text": text, "speaker": speakers.get(ident, (0, ""))[1]}
        row["language"] = languages.get(ident, (0, ""))[1]
        recording, times = ident, Times(where)
        if segments:
            if ident not in segments:
                raise UserError(f"{where}: {ident} is not in {folder / 'segments'}")
            line, rest = segments[ident]
            recording, row["channel"], times = _segment(rest, f"{folder / 'segments'}, line {line}")
        if recording not in recordings:
            raise UserError(
                f"{where}: the recording {recording} is not in {folder / 'wav.scp'}"
                + ("" if segments else ", and there is no file segments")
            )
        row["path"] = recordings[recording][1]
        yield utterance_of(row, SAME, base, where, times)
    # a file text that was cut off must not go unnoticed
    told, name = (segments, "segments") if segments else (recordings, "wav.scp")
    for ident, (number, _) in told.items():
        if ident not in texts:
            where = f"{folder / name}, line {number}"
            yield Utterance(where, ident, "", f"no line in {folder / 'text'}", left_out=EMPTY)


def _read(path: Path, needed: bool = True, values: bool = True) -> Lines:
    """Return the lines of a file by their first word.

    Args:
        path: The file.
        needed: Whether a missing or empty file is an error.
        values: Whether a line with nothing after its first word is an error.

    Raises:
        UserError: The file is missing or empty, or a line is wrong or has the first word of
            another line.
    """
    if not path.is_file():
        if needed:
            raise UserError(f"{path} does not exist; a data directory of Kaldi's has wav.scp, text")
        return {}
    lines: Lines = {}
    for number, line in enumerate(text_lines(path), 1):
        words = line.strip().split(maxsplit=1)
        if not words:
            continue
        if words[0] in lines:
            line_before, before = lines[words[0]]
            raise UserError(
                f"{path}, line {number}: {words[0]} is on line {line_before} too: here "
                f"{' '.join(words[1:])!r}, there {before!r}. Give each an id of its own, or remove "
                "one of the lines"
            )
        if values and len(words) < 2:
            raise UserError(f"{path}, line {number}: nothing but {words[0]}")
        lines[words[0]] = (number, words[1] if len(words) > 1 else "")
    if needed and not lines:
        raise UserError(f"{path} is empty")
    return lines


def _refuse_commands(path: str, where: str) -> None:
    """Refuse a path of wav.scp that is a command, which is not run, or an archive of Kaldi.

    Raises:
        UserError: The path is a command or an archive.
    """
    if re.search(r"\.ark(:\d+)?$", path):
        raise UserError(
            f"{where}: {path!r} is an archive of Kaldi's, which is not read here. Write its audio "
            "to files (wav-copy) and name these"
        )
    if path.endswith("|") or path.startswith("|"):
        raise command_refused(path, where)


def _segment(rest: str, where: str) -> tuple[str, str, Times]:
    """Return (recording, channel, times) of a line of segments, given without its utterance id."""
    words = rest.split()
    try:
        recording, start, end = words[0], float(words[1]), float(words[2])
        channel = words[3] if len(words) > 3 else ""
        if not math.isfinite(start + end) or len(words) > 4:
            raise ValueError
    except (IndexError, ValueError) as error:
        raise UserError(
            f"{where}: expected an utterance, a recording, its start and its end in seconds, and "
            f"perhaps a channel, not {rest!r}"
        ) from error
    values = [(TIMES[0], start, "")]
    if end != -1:  # for Kaldi, -1 is the end of the recording
        values.append((TIMES[1], end, ""))
    return recording, channel, Times(where, tuple(values), mend=MEND)
