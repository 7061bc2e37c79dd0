"""Manifests as compressed JSON lines: read as raw lines, written with the same bytes every time.

Whole corpora pass through here, so lines stay bytes and nothing becomes a lhotse object before it
must. The files are the ones lhotse reads and writes.
"""

import filecmp
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from asrprune.base.encodings import not_utf8
from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path


def read_lines(path: str | Path, made_by: str) -> Iterator[bytes]:
    """The lines of a ``.jsonl.gz`` file, without empty ones.

    Args:
        made_by: what makes this file, such as ``"stage 1 (manifests)"``, for the messages.

    Raises:
        UserError: the file is missing, or is cut short or damaged.
    """
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                if line.strip():
                    yield line
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {made_by} makes it") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path} is damaged ({error}); delete it and run {made_by} again"
        ) from error


def parse_line(line: bytes, path: str | Path, number: int) -> dict[str, Any]:
    """One line as a dictionary with an ``id``.

    Raises:
        UserError: it is none; the message names the file and the line.
    """
    try:
        if b"\0" in line:  # json.loads would take two bytes a character
            raise not_utf8(Path(path), number, line)
        entry = json.loads(line)
        entry["id"]
    except UnicodeDecodeError as error:
        raise not_utf8(Path(path), number, line) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}, line {number}: no manifest entry ({error!r})") from error
    return entry


@contextmanager
def write_lines(path: str | Path) -> Iterator[IO[bytes]]:
    """A ``.jsonl.gz`` file that appears when it is complete. The header holds no name and time."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=4, mtime=0) as file,
    ):
        yield file  # type: ignore[misc]


def source_of(recording: dict[str, Any] | None) -> str:
    """Where the samples of a recording are read from; empty: it does not say."""
    sources = (recording or {}).get("sources") or []
    return ", ".join(str(source.get("source", "")) for source in sources)


def same_audio(first: str, second: str) -> bool:
    """Whether two sources are one: one name, one file, or files of the same bytes."""
    if first == second:
        return True
    try:
        return os.path.samefile(first, second) or filecmp.cmp(first, second, shallow=False)
    except (OSError, ValueError):  # no files, or not here: their names decide
        return False


def to_line(entry: dict[str, Any]) -> bytes:
    """A manifest entry as a line."""
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
