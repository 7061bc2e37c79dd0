"""How verbs and the scripts of recipes run: what goes wrong becomes one message and a status."""

import logging
import os
import sys
from collections.abc import Callable

from asrprune.base.errors import UserError, told

log = logging.getLogger(__name__)


def run_script(name: str, work: Callable[[], int | None]) -> int:
    """Run a verb or a script to its end.

    Where nobody has set up the log yet, its messages go to standard error, from the level that
    ASRPRUNE_LOG names.

    Args:
        name: What the messages begin with.
        work: The function to run; it returns an exit status, or None for 0.

    Returns:
        The exit status. A UserError, an error of the system, missing memory and a missing package
        are 1, after one message on standard error.
    """
    try:
        logging.basicConfig(level=log_level(), format="%(levelname)s %(name)s: %(message)s")
        try:
            status = work()
        except SystemExit:  # of --help, whose text is still to be written
            _flush()
            raise
        _flush()
        return status or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted; the same command goes on from here\n")
        return 130
    except (UserError, OSError, MemoryError, ImportError) as error:
        if not (message := told(error)):
            raise
        if not isinstance(error, UserError):  # it may be a mistake of ours
            log.debug("where it came from", exc_info=True)
            message += " (ASRPRUNE_LOG=DEBUG shows where)"
        _drop_output()
        sys.stderr.write(f"{name}: error: {message}\n")
        return 1


def log_level() -> str:
    """Return the level of messages that ASRPRUNE_LOG asks for.

    Raises:
        UserError: There is no such level.
    """
    level = os.environ.get("ASRPRUNE_LOG", "INFO").upper()
    if not isinstance(logging.getLevelName(level), int):
        raise UserError(f"ASRPRUNE_LOG={level} is no log level, such as WARNING")
    return level


def _flush() -> None:
    """Write what waits for standard output, so that its errors are told as all others."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output() -> None:
    """Forget what cannot be written to standard output: Python would tell of it once more."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
