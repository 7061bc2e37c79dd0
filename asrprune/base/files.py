"""Files that are either whole or absent: written beside, flushed, renamed."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asrprune.base.errors import ADVICE, NO_ROOM, UserError

# in the names of temporary files: a shared folder holds those of other machines too
_HOST = "".join(filter(str.isalnum, socket.gethostname())) or "host"
_NO_FSYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``; it becomes ``path`` on success.

    The suffixes of ``path`` are kept, so that writers which choose their format by suffix (``.gz``)
    work. On any exception the temporary file is removed and ``path`` is left as it was. What killed
    processes of this machine left in the folder is removed.

    Raises:
        UserError: the disk is full, or fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    temporary = path.with_name(f".tmp-{_HOST}-{os.getpid()}-{path.name}")
    try:
        with explain_failed_write(path):
            yield temporary
            flush_to_disk(temporary)
            os.replace(temporary, path)
            flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files whose process, of this machine, is no more."""
    for leftover in folder.glob(f".tmp-{_HOST}-*"):
        process = leftover.name[len(f".tmp-{_HOST}-") :].partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@contextmanager
def explain_failed_write(path: str | Path) -> Iterator[None]:
    """Turn errors of the system that name no file into a :class:`UserError` that names ``path``.

    A full disk is one, so is a network file system that went away.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and error.errno not in NO_ROOM):
            raise
        advice = ADVICE.get(error.errno, "Once the cause is removed, run the same command again")
        raise UserError(
            f"cannot write {path}: {os.strerror(error.errno)}. Nothing half-written was left. "
            f"{advice}."
        ) from error


def flush_to_disk(path: str | Path) -> None:
    """fsync a file or a folder, so that a rename survives a power cut.

    Some network file systems cannot do this, of folders above all; nothing is lost by that.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
