"""Where relative paths of somebody else's files begin."""

import os
from pathlib import Path

from asrprune.errors import UserError


def find_base(start: Path, example: str) -> Path:
    """The first folder in which ``example`` is: this one, ``start``, and those above it.

    :raises UserError: it is in none of them.
    """
    if os.path.isabs(example):
        return Path()
    above = (start, *Path(os.path.abspath(start)).parents)
    for folder in (Path(), *above):
        if (folder / example).exists():
            return folder
    raise UserError(
        f"{start} names {example}, which is neither here, nor there, nor in a folder above: say "
        "what relative paths are relative to with --audio-dir"
    )
