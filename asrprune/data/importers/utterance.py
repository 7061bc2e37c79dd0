"""Make an utterance of a row of a corpus, whose columns may have various names."""

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError, nearest
from asrprune.data.importers.time_columns import Times, read_times

# Column -> the names that it may have, our own name first. The other names come from NeMo's
# manifests, from Hugging Face's audio folders and from tables of crowd-sourced corpora. The module
# time_columns has the names of the columns of time.
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
    """An utterance: what is said in a file, or in a part of a file."""

    where: str  # position in the corpus, for messages: "train.tsv, line 7"
    id: str
    path: str  # of the audio file
    text: str  # before any change
    speaker: str = ""
    language: str = ""
    times: Times = Times()  # as the row gives them
    start: float = 0.0  # seconds; set by times.resolve()
    duration: float | None = None  # seconds; None: to the end of the file
    channel: int | None = None  # None: the first channel
    named: bool = True  # the corpus gave the id; otherwise it was made from the path
    left_out: str = ""  # why the utterance is left out, one word; empty: it is used


def find_columns(names: list[str], where: str) -> dict[str, str]:
    """Return a dictionary from our name of each known column to its name in the corpus.

    Raises:
        UserError: There is no column of the path, or no column of the text.
    """
    small = {name.strip().lower(): name for name in reversed(names)}
    small |= {name: name for name in names}  # an exact name has priority
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
    """Return the :class:`Utterance` of a row. Its times are not resolved yet.

    Args:
        row: Values by the column names of the corpus.
        columns: The result of :func:`find_columns`.
        base: What relative paths are relative to.
        where: The position of the row, for messages.
        times: Start and end of the utterance in its file. None: read them from the row.

    Raises:
        UserError: A value is missing, or is invalid in its column.
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
    """Return an id of a manifest as a string. lhotse writes strings, other tools write numbers.

    Raises:
        UserError: The value is no id.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where}: {value!r} is no id; ids are strings")
    return str(value)


def clean(text: str) -> str:
    """Return a text in NFC, with single spaces between words. Its letters stay as they are.

    No-break spaces, ideographic spaces and line ends also count as spaces.
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
    """Return an id for an utterance without an id: the path without its suffix.

    :mod:`.times` appends the start of the utterance.
    """
    name = "-".join(part for part in Path(path).with_suffix("").parts if part not in ("/", "."))
    return "_".join(name.split())
