"""Paths in somebody else's files: where relative ones begin, and commands in their place."""

import os
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.data.names import file_in_other_form


def command_refused(command: str, where: str) -> UserError:
    """The message about a command in the place of a file: somebody else's are not run."""
    return UserError(
        f"{where}: {command!r} is a command, and commands in files are not run here. Run it once, "
        "with its output in a file (for Kaldi: utils/data/... or wav-copy), and name that file"
    )


def find_base(start: Path, example: str) -> Path:
    """The first folder in which ``example`` is: this one, ``start``, and those above it.

    Raises:
        UserError: it is in none of them.
    """
    if os.path.isabs(example):
        return Path()
    folders = (Path(), start, *Path(os.path.abspath(start)).parents)
    for there in (os.path.exists, file_in_other_form):  # of the second, its utterance will say so
        for folder in folders:
            if there(folder / example):
                return folder
    raise UserError(
        f"{start} names {example}, which is neither here, nor there, nor in a folder above: say "
        "what relative paths are relative to with --audio-dir"
    )
