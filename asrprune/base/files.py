"""Write files atomically: write a temporary file, flush it, rename it."""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asrprune.base.errors import ADVICE, NO_ROOM, UserError

# Part of the names of temporary files: a shared folder also holds files of other machines.
_HOST = "".join(filter(str.isalnum, socket.gethostname())) or "host"
_NO_FSYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name in the folder of ``path``, and rename it to ``path`` on success.

    The temporary name keeps the suffixes of ``path``, because some writers choose their format by
    the suffix (``.gz``). After an exception, the temporary file is removed and ``path`` is
    unchanged. Temporary files of killed processes of this machine are removed from the folder.

    Raises:
        UserError: the disk is full or fails.
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
    """Delete temporary files of processes of this machine that have ended."""
    for leftover in folder.glob(f".tmp-{_HOST}-*"):
        process = leftover.name[len(f".tmp-{_HOST}-") :].partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            leftover.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user
        return True
    return True


@contextmanager
def explain_failed_write(path: str | Path) -> Iterator[None]:
    """Turn errors of the system that name no file into a :class:`UserError` that names ``path``.

    Examples are a full disk and a network file system that is unavailable.
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
    """Flush a file or a folder to the disk with fsync, so that a rename survives a power cut.

    Some network file systems cannot flush folders or files. Their error is ignored, because no data
    is lost.
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
    """Write a JSON file atomically, with the keys in the given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from error
