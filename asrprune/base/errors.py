"""Define the errors that tell the user what is wrong, where, and what to do."""

import difflib
import errno
import os
import sys
from collections.abc import Iterable

NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}
# advice for errors of the system that name no file
ADVICE = {
    **dict.fromkeys(NO_ROOM, "Free some space and run the same command again"),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "Raise the limit (ulimit -n 4096), or use fewer processes (--jobs, data.num_workers)",
    ),
    **dict.fromkeys(
        (errno.ENOMEM, errno.EAGAIN),
        "Use fewer processes (--jobs, data.num_workers), or a machine with more memory",
    ),
    **dict.fromkeys(
        (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EREMOTEIO),
        "A disk or a network file system failed. Once it works, run the same command again",
    ),
    errno.EROFS: "This file system can only be read. Choose another folder to write to",
    errno.EPIPE: "The program that read this output has ended",
}
PACKAGES = {
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
}  # import name -> name on PyPI, if the two differ


class UserError(Exception):
    """Report bad input or a bad environment. The command line prints it without a traceback."""


def told(error: BaseException) -> str:
    """Return the message of an error for the user.

    Args:
        error: Any error.

    Returns:
        The message. Empty for an error that only a bug in the program can raise.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, MemoryError):
        return f"memory ran out. {ADVICE[errno.ENOMEM]}"
    if isinstance(error, ImportError):
        return missing_package(error)
    return ""


def _of_the_system(error: OSError) -> str:
    if error.errno is None:  # such as a data loader's error, with its traceback as text
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return lines[-1].removeprefix("OSError: ")
    reason = error.strerror or os.strerror(error.errno)
    if error.filename is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(names)}: {reason}"
    what = f"cannot write: {reason}" if error.errno in NO_ROOM else reason
    return f"{what}. {advice}" if (advice := ADVICE.get(error.errno)) else what


def missing_package(error: ImportError) -> str:
    """Return the message for a package that is missing or cannot be loaded.

    Args:
        error: The error of the import.

    Returns:
        The message, with the command that installs the package. Empty if the package is asrprune or
        belongs to Python.
    """
    name = (error.name or "").partition(".")[0]
    if name == "asrprune" or name in sys.stdlib_module_names:
        return ""
    if not name:  # lhotse's own message names the package
        return str(error).strip()
    package = PACKAGES.get(name, name.replace("_", "-"))
    if isinstance(error, ModuleNotFoundError):
        return f"the Python package {package} is missing. Install it: pip install {package}"
    return (
        f"the Python package {package} cannot be loaded ({error}). Install it anew: "
        f"pip install --force-reinstall {package}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for a misspelt name, or "" if no known name is near.

    Args:
        name: the misspelt name.
        known: the known names.
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
