"""Write and read checkpoints: the whole state of a training in one file, written atomically.

A training writes ``checkpoint-N.pt`` every so many steps, and keeps the last few of these files. It
writes ``epoch-N.pt`` at the end of each epoch, and keeps all of these files for averaging. Both
files have the same content. A training resumes from the furthest checkpoint. If this checkpoint is
damaged, the training resumes from the checkpoint before.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path
from asrprune.weight_pruning.masks.packing import unpacked_state

log = logging.getLogger(__name__)

FORMAT = 1


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint atomically.

    Args:
        state: the content.
        path: the file.

    Raises:
        UserError: the disk is full. No file is written, and older checkpoints stay as they are.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        stream = _Stream(file)
        try:
            torch.save({"format": FORMAT, **state}, stream)
        except RuntimeError:
            if stream.error:
                raise stream.error from None
            raise


class _Stream:
    """Remember the system's error (disk full), which ``torch.save`` replaces by its own error."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def also_as(path: Path, other: Path) -> None:
    """Give a checkpoint a second name: a hard link, or a copy if the file system has no links."""
    with atomic_path(other) as temporary:
        try:
            os.link(path, temporary)
        except OSError:
            shutil.copyfile(path, temporary)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint or a model file to the CPU. Packed weights are unpacked.

    Raises:
        UserError: the file is missing, damaged, or of another format.
    """
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document the exceptions of damaged files
        raise UserError(
            f"checkpoint {path} is damaged ({_first_sentence(error)}); delete it to go on from the "
            "one before"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"checkpoint {path} was not written by this version of asrprune")
    if "model" in state:
        try:
            state["model"] = unpacked_state(state["model"])
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    return state


def latest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the furthest readable checkpoint of a folder and its content.

    Returns:
        The path and the content; None if the folder has no checkpoints.

    Raises:
        UserError: there are checkpoints, but none can be read.
    """
    paths = list(checkpoints(folder))
    for path in paths:
        try:
            state = load_checkpoint(path)
        except UserError as error:
            log.warning("%s; going on from the one before", str(error).split(";")[0])
            continue
        return path, state
    if paths:
        raise UserError(
            f"none of the {len(paths)} checkpoints in {folder} can be read; delete them to start "
            "again, or choose another --tag"
        )
    return None


def checkpoints(folder: Path) -> Iterator[Path]:
    """Yield all checkpoints of a folder, the furthest first.

    The end of an epoch is saved under both names. So the ``checkpoint-N.pt`` files come first, from
    the last step back. The ``epoch-N.pt`` files follow, since they are not newer.
    """
    for kind in ("checkpoint", "epoch"):
        yield from reversed(numbered(folder, kind))


def numbered(folder: Path, kind: str) -> list[Path]:
    """Return the ``<kind>-N.pt`` files of a folder, ordered by N."""
    found = folder.glob(f"{kind}-*.pt")
    found = (path for path in found if re.fullmatch(rf"{kind}-\d+\.pt", path.name))
    return sorted(found, key=number_of)


def number_of(path: Path) -> int:
    """Return the number N of a file ``<kind>-N.pt``."""
    return int(path.stem.rpartition("-")[2])


def remove_old_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the last ``keep`` of the ``checkpoint-N.pt`` files."""
    for path in numbered(folder, "checkpoint")[:-keep]:
        path.unlink()


def set_aside(path: Path) -> None:
    """Rename a file to ``<name>.old``. The file is kept, but no command reads it."""
    path.replace(path.with_name(f"{path.name}.old"))


def _first_sentence(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].split(". ")[0][:120]
