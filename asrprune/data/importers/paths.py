"""Find what relative paths in imported files are relative to, and refuse commands as paths."""

import os
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.data.names import file_in_other_form


def command_refused(command: str, where: str) -> UserError:
    """Return the error about a command instead of a path. Imported commands are not run."""
    return UserError(
        f"{where}: {command!r} is a command, and commands in files are not run here. Run it once, "
        "with its output in a file (for Kaldi: utils/data/... or wav-copy), and name that file"
    )


def find_base(start: Path, example: str) -> Path:
    """Return the first folder in which a relative path exists.

    The folders are the working directory, ``start``, and the folders above ``start``. If
    ``example`` is absolute, the working directory is returned.

    Args:
        start: The folder of the imported files.
        example: The path to search for.

    Raises:
        UserError: None of these folders has ``example``.
    """
    if os.path.isabs(example):
        return Path()
    folders = (Path(), start, *Path(os.path.abspath(start)).parents)
    for there in (os.path.exists, file_in_other_form):  # a later error explains the other form
        for folder in folders:
            if there(folder / example):
                return folder
    raise UserError(
        f"{start} names {example}, which is neither here, nor there, nor in a folder above: say "
        "what relative paths are relative to with --audio-dir"
    )
