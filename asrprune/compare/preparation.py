"""Runs the command lines that make a comparison's data, one by one, in the current folder."""

import logging
import subprocess
from collections.abc import Sequence

from asrprune.base.errors import UserError
from asrprune.compare.options import command_words

log = logging.getLogger(__name__)


def prepare(lines: Sequence[str]) -> None:
    """Run the command lines one after another. Their output goes where this process writes.

    An exception that ends this function, such as Ctrl-C, also ends the running command.

    Raises:
        UserError: a command cannot be started, or failed.
    """
    for line in lines:
        log.info("preparing: %s", line)
        try:
            process = subprocess.Popen(command_words(line), stdin=subprocess.DEVNULL)
        except OSError as error:
            raise UserError(f"prepare: {line}: {error}") from error
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if status:
            raise UserError(f"prepare: {line}: ended with status {status}")
