"""The command lines that make a comparison's data, run one after another in the present folder."""

import logging
import subprocess
from collections.abc import Sequence

from asrprune.errors import UserError
from asrprune.studies.options import command_words

log = logging.getLogger(__name__)


def prepare(lines: Sequence[str]) -> None:
    """Run each to its end; what they say goes where this process's words go.

    Whatever ends this process by an exception, Ctrl-C for one, ends the command that runs.

    Raises:
        UserError: one cannot be started, or failed.
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
