"""Read and write manifests as compressed JSON lines.

Whole corpora pass through this module, so lines stay bytes, and nothing becomes a lhotse object
before it must. The files have the format that lhotse reads and writes. The same lines always give
the same bytes.
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
    """Yield the lines of a ``.jsonl.gz`` file, without empty lines.

    Args:
        path: The file.
        made_by: What makes this file, such as ``"stage 1 (manifests)"``, for the messages.

    Raises:
        UserError: The file is missing, cut short or damaged.
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
    """Return a line as a dictionary with an ``id``.

    Raises:
        UserError: The line is no such dictionary. The message names the file and the line.
    """
    try:
        if b"\0" in line:  # json.loads would read the line as UTF-16 or UTF-32
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
    """Open a ``.jsonl.gz`` file for writing. The file appears when it is complete.

    The gzip header holds no name and no time, so the same lines give the same bytes.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=4, mtime=0) as file,
    ):
        yield file  # type: ignore[misc]


def source_of(recording: dict[str, Any] | None) -> str:
    """Return the sources of a recording's samples; empty if the recording names none."""
    sources = (recording or {}).get("sources") or []
    return ", ".join(str(source.get("source", "")) for source in sources)


def same_audio(first: str, second: str) -> bool:
    """Return whether two sources are equal: the same name, the same file, or equal bytes."""
    if first == second:
        return True
    try:
        return os.path.samefile(first, second) or filecmp.cmp(first, second, shallow=False)
    except (OSError, ValueError):  # no files on this machine: only the names count
        return False


def to_line(entry: dict[str, Any]) -> bytes:
    """Return a manifest entry as a line."""
    return json.dumps(entry, ensure_ascii=False).encode() + b"\n"
