"""Locks of files that end with the process that holds them, and file systems that have none.

Network file systems of clusters (Lustre without ``-o flock``, some NFS) answer every wish for a
lock with an error. A run then goes on with a warning: the user sees to it that no second one runs
in the same folder. "In use" is said only where somebody holds the lock.

``python3 -m asrprune.base.locks`` is what ``tools/stages.sh`` asks; see :func:`main`.
"""

import errno
import fcntl
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from asrprune.base.errors import UserError

HELD, NO_LOCKS = 75, 69  # exit statuses of the command; Python's own for failures is 1

log = logging.getLogger(__name__)


class NoLocks(Exception):
    """The file system gives no lock; the message is the system's reason."""


def open_locked(path: str | Path, in_use: str) -> BinaryIO:
    """Open a file for reading and appending, without a buffer, and hold its lock.

    The lock ends when the file is closed, or with the process. Where the file system has no locks,
    a warning says so, and the file is open all the same.

    Args:
        path: The file; it is made where it does not exist, with its folders.
        in_use: The message where another process holds the lock.

    Returns:
        The open file.

    Raises:
        UserError: Another process holds the lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b", buffering=0)  # noqa: SIM115 (open as long as it is locked)
    try:
        taken = take(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB, path.parent)
    except NoLocks as error:
        log.warning("%s", no_locks_in(path.parent, str(error)))
        return file
    except BaseException:
        file.close()
        raise
    if not taken:
        file.close()
        raise UserError(in_use)
    return file


def take(descriptor: int, operation: int, folder: Path) -> bool:
    """Take a lock of an open file.

    Args:
        descriptor: Of the open file.
        operation: As ``fcntl.flock`` has it.
        folder: Where the file is.

    Returns:
        Whether the lock was taken; False: another open file holds it.

    Raises:
        NoLocks: The file system gives none.
    """
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        # some network file systems say this of a lock that is held, others of every lock
        if error.errno == errno.EACCES and _has_locks(folder):
            return False
        reason = str(error) if error.errno is None else os.strerror(error.errno)
        raise NoLocks(reason) from error
    return True


def _has_locks(folder: Path) -> bool:
    """Whether a file that nobody else knows can be locked in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def no_locks_in(folder: Path, reason: str) -> str:
    """The warning about a folder whose files cannot be locked."""
    return (
        f"files in {folder} cannot be locked ({reason}), as on some network file systems. This run "
        "goes on without a lock. See that no second run works in the same folder"
    )


def main() -> int:
    """Lock a descriptor that this process inherited; the lock stays when this process ends.

    The command line is ``DESCRIPTOR exclusive|shared FOLDER try|wait warn|quiet``.

    Returns:
        The exit status: 0, HELD, or NO_LOCKS after a warning.
    """
    descriptor, mode, folder, wait, warn = sys.argv[1:]
    operation = fcntl.LOCK_EX if mode == "exclusive" else fcntl.LOCK_SH
    if wait == "try":
        operation |= fcntl.LOCK_NB
    try:
        return 0 if take(int(descriptor), operation, Path(folder)) else HELD
    except NoLocks as error:
        if warn == "warn":
            sys.stderr.write(f"warning: {no_locks_in(Path(folder), str(error))}\n")
        return NO_LOCKS


if __name__ == "__main__":
    sys.exit(main())
