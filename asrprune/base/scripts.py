"""Run verbs and recipe scripts, and turn each error into one message and an exit status."""

import logging
import os
import sys
from collections.abc import Callable

from asrprune.base.errors import UserError, told

log = logging.getLogger(__name__)


def run_script(name: str, work: Callable[[], int | None]) -> int:
    """Run a verb or a script to its end.

    If logging has no handler yet, messages go to standard error, from the level in ASRPRUNE_LOG.

    Args:
        name: The first word of error messages.
        work: The function to run. It returns an exit status, or None for 0.

    Returns:
        The exit status. A UserError, an error of the system, missing memory and a missing package
        give 1, after one message on standard error. An interrupt gives 130.
    """
    try:
        logging.basicConfig(level=log_level(), format="%(levelname)s %(name)s: %(message)s")
        try:
            status = work()
        except SystemExit:  # --help exits, and its text is still in the buffer
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
        if not isinstance(error, UserError):  # the cause may be a bug in asrprune
            log.debug("where it came from", exc_info=True)
            message += " (ASRPRUNE_LOG=DEBUG shows where)"
        _drop_output()
        sys.stderr.write(f"{name}: error: {message}\n")
        return 1


def log_level() -> str:
    """Return the log level that ASRPRUNE_LOG names; without ASRPRUNE_LOG: INFO.

    Raises:
        UserError: The level does not exist.
    """
    level = os.environ.get("ASRPRUNE_LOG", "INFO").upper()
    if not isinstance(logging.getLevelName(level), int):
        raise UserError(f"ASRPRUNE_LOG={level} is no log level, such as WARNING")
    return level


def _flush() -> None:
    """Write the buffer of standard output, so that its errors are reported like all others."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_output() -> None:
    """Discard output that cannot be written. Otherwise Python reports the error again at exit."""
    try:
        _flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
