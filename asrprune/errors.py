"""Errors whose message is meant for the user: what is wrong, where, and the way out."""

import difflib
import errno
from collections.abc import Iterable

NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class UserError(Exception):
    """Bad input or a bad environment. The command line prints the message without a traceback."""


def told(error: UserError | OSError) -> str:
    """The message for the user; empty: it is none for them, such as a pipe that was closed.

    Of the system's errors those of a file are, and a full disk, which often names none.
    """
    if isinstance(error, UserError):
        return str(error)
    if error.filename is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {error.strerror}"
    return f"cannot write: {error.strerror}" if error.errno in NO_ROOM else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for a misspelt name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
