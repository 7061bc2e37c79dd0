"""An utterance as a corpus tells of it, and what its columns may be called."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError, nearest
from asrprune.data.importers.time_columns import Times, read_times

# Column -> the names that it may have, ours first: others are those of NeMo's manifests, of
# Hugging Face's audio folders and of tables that crowds have read. Columns of time have a module of
# their own, time_columns.
COLUMNS = {
    "path": ("path", "audio", "audio_filepath", "file_name"),
    "text": ("text", "sentence", "transcription", "transcript"),
    "id": ("id",),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "language": ("language", "lang", "locale"),
    "channel": ("channel",),
}
NEEDED = ("path", "text")
EMPTY = "empty-text"  # a reason to leave an utterance out


@dataclass(frozen=True)
class Utterance:
    """What is said in a file, or in a part of it."""

    where: str  # it is told of, for messages: "train.tsv, line 7"
    id: str
    path: str  # of the audio
    text: str  # as it came in
    speaker: str = ""
    language: str = ""
    times: Times = Times()  # as the row says them
    start: float = 0.0  # seconds; after times.resolve()
    duration: float | None = None  # seconds; None: to the end of the file
    channel: int | None = None  # None: the first
    named: bool = True  # the corpus gave the id; else it was made of the path
    left_out: str = ""  # why it is not to be used, a word; empty: it is


def find_columns(names: list[str], where: str) -> dict[str, str]:
    """Our name of each column that is known -> the name that it has.

    Raises:
        UserError: there is none of the path, or of the text.
    """
    small = {name.strip().lower(): name for name in reversed(names)}
    small |= {name: name for name in names}  # what is written as it should be comes first
    found = {
        column: next(small[name] for name in known if name in small)
        for column, known in COLUMNS.items()
        if not set(known).isdisjoint(small)
    }
    for column in NEEDED:
        if column not in found:
            others = ", ".join(COLUMNS[column][1:])
            raise UserError(
                f"{where}: there is no column {column!r} (or {others}){nearest(column, names)}; "
                f"there are: {', '.join(names)}"
            )
    return found


def utterance_of(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    base: Path,
    where: str,
    times: Times | None = None,
) -> Utterance:
    """The :class:`Utterance` of a row, whose times are not resolved yet.

    Args:
        columns: as :func:`find_columns` has them.
        base: what relative paths are relative to.
        times: start and end of the utterance in its file; None: the row has them.

    Raises:
        UserError: a value is missing or none of its column.
    """
    values = {column: row.get(name) for column, name in columns.items()}
    text = "" if values["text"] is None else values["text"]
    if not isinstance(text, str):
        raise UserError(f"{where}: {text!r} in the column {columns['text']!r} is no text")
    path = _word(values["path"])
    if not path:
        raise UserError(f"{where}: there is no path in the column {columns['path']!r}")
    channel = _number(values.get("channel"), "channel", where)
    if channel is not None and (channel < 0 or channel != int(channel)):
        raise UserError(f"{where}: {channel:g} is no channel; the first is 0")
    given = _word(values.get("id"))
    ident = given or _name(path)
    if len(ident.split()) != 1:
        raise UserError(f"{where}: the id {ident!r} holds a space; ids are single words")
    return Utterance(
        where=where,
        id=ident,
        path=str(base / path),
        text=text,
        speaker=_word(values.get("speaker")),
        language=_word(values.get("language")),
        times=read_times(row, where) if times is None else times,
        channel=None if channel is None else int(channel),
        named=bool(given),
    )


def id_of(value: Any, where: str) -> str:
    """An id of a manifest as a string: lhotse's are strings, other tools write numbers.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where}: {value!r} is no id; ids are strings")
    return str(value)


def clean(text: str) -> str:
    """A text in Unicode's NFC, words apart by one space. Its letters stay as they are.

    No-break and ideographic spaces, and what ends lines, are spaces like others.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _number(value: Any, column: str, where: str) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {value!r} in the column {column!r} is no number")
    return number


def _name(path: str) -> str:
    """An id for an utterance without: the path without its suffix. Its start comes behind it."""
    name = "-".join(part for part in Path(path).with_suffix("").parts if part not in ("/", "."))
    return "_".join(name.split())
