"""Cuts that a file names and that training sets leave out, such as suspected label errors."""

from pathlib import Path

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError
from asrprune.data_pruning.ids import utterance_id


class LeaveOut:
    """The cuts that a file names, with one cut id on each line.

    A wrong transcript is wrong in every copy of an utterance. So a cut id stands for the cut and
    for all its copies at other speeds.

    Args:
        path: the file; None: no cut is left out.

    Raises:
        UserError: the file does not exist, names no cut, or is not text in UTF-8.
    """

    def __init__(self, path: Path | None):
        self._path = path
        self._lines: dict[str, tuple[int, str]] = {}  # utterance -> number of the line, cut id
        self._missing: set[str] = set()  # utterances that no set has had so far
        if path is None:
            return
        if not path.is_file():
            raise UserError(
                f"--leave-out {path}: this file does not exist. The page of asrprune report data "
                "saves such a file"
            )
        for number, line in enumerate(text_lines(path), 1):
            if cut_id := line.strip():
                self._lines.setdefault(utterance_id(cut_id), (number, cut_id))
        if not self._lines:
            raise UserError(f"--leave-out {path}: the file names no cut. Leave the option out")
        self._missing = set(self._lines)

    def see(self, cut_id: str) -> str:
        """Note that a set has a cut.

        Returns:
            The file and the line that name the cut or its utterance; empty if no line does.
        """
        utterance = utterance_id(cut_id)
        if utterance not in self._lines:
            return ""
        self._missing.discard(utterance)
        return f"{self._path}, line {self._lines[utterance][0]}"

    def check(self) -> None:
        """Check that every cut of the file was in a set.

        Raises:
            UserError: no set has a cut of this id.
        """
        if not self._missing:
            return
        number, cut_id = min(self._lines[utterance] for utterance in self._missing)
        count = len(self._missing)
        raise UserError(
            f"--leave-out {self._path}, line {number}: no set has a cut {cut_id!r}"
            f"{f', nor {count - 1} other cuts of the file' if count > 1 else ''}. Delete the line, "
            "or give the file of this corpus"
        )
