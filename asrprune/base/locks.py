"""Lock files until a process ends, and continue on file systems without locks.

Some network file systems of clusters reject every lock (Lustre without ``-o flock``, some NFS). A
run then continues with a warning, and the user must not start a second run in the same folder. The
message "in use" appears only if another process holds the lock.

``tools/stages.sh`` runs ``python3 -m asrprune.base.locks``; see :func:`main`.
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

HELD, NO_LOCKS = 75, 69  # exit statuses of the command; Python itself exits with 1 on failures

log = logging.getLogger(__name__)


class NoLocks(Exception):
    """Report that the file system does not support locks. The message is the system's reason."""


def open_locked(path: str | Path, in_use: str) -> BinaryIO:
    """Open a file for reading and appending, without a buffer, and lock it.

    The lock ends when the file is closed or the process ends. If the file system has no locks, the
    function logs a warning and returns the open file without a lock.

    Args:
        path: The file. A missing file is created, with its folders.
        in_use: The message if another process holds the lock.

    Returns:
        The open file.

    Raises:
        UserError: Another process holds the lock.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+b", buffering=0)  # noqa: SIM115 (stays open while locked)
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
    """Lock an open file.

    Args:
        descriptor: The descriptor of the open file.
        operation: The operation of ``fcntl.flock``.
        folder: The folder of the file.

    Returns:
        Whether the lock was taken. False means that another open file holds the lock.

    Raises:
        NoLocks: The file system does not support locks.
    """
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        # some network file systems give EACCES for a lock in use, others for every lock
        if error.errno == errno.EACCES and _has_locks(folder):
            return False
        reason = str(error) if error.errno is None else os.strerror(error.errno)
        raise NoLocks(reason) from error
    return True


def _has_locks(folder: Path) -> bool:
    """Return whether a new temporary file in a folder can be locked."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def no_locks_in(folder: Path, reason: str) -> str:
    """Return the warning for a folder whose files cannot be locked."""
    return (
        f"files in {folder} cannot be locked ({reason}), as on some network file systems. This run "
        "goes on without a lock. See that no second run works in the same folder"
    )


def main() -> int:
    """Lock a file descriptor that this process inherited. The lock remains when this process ends.

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
