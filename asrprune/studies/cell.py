"""One cell of a comparison: its steps one by one, and the records of what came out.

Each step that is done is written down in the cell's ``progress.json``; a training that was stopped
goes on from its checkpoint. A cell with a whole ``record.json`` is finished.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.config import Config, changes, load_config
from asrprune.errors import UserError
from asrprune.files import read_json, write_json
from asrprune.studies.children import Children
from asrprune.studies.measured import training_data_digest
from asrprune.studies.options import StudyOptions
from asrprune.studies.study import TRAIN, Cell, Record, Study


def cell_config(options: StudyOptions, cell: Cell) -> Config:
    """The configuration that a cell trains with."""
    return load_config(options.config, cell.words)


def finished(study: Study, cell: Cell) -> list[Record] | None:
    """The records of a cell; None if it is not finished, or some are asked for that it has not.

    :raises UserError: it was trained or tested with other options or data than it would be now.
    """
    folder = study.folder(cell)
    if not (folder / "record.json").is_file():
        return None
    records = read_json(folder / "record.json")
    config = cell_config(study.options, cell)
    told = study.told(cell, records) | {
        "the training data": (records[0]["data"], training_data_digest(study.options, config)),
    }
    _refuse(folder, [*_changed(folder, config), *(item for item in told.items())])
    by_key = {study.key(record): record for record in records}
    expected = study.expected(cell)
    return [by_key[key] for key in expected] if by_key.keys() >= set(expected) else None


def run_cell(study: Study, cell: Cell, children: Children) -> list[Record]:
    """Do what is left of a cell; returns its records.

    :raises UserError: a step failed, or was done with other options.
    :raises asrprune.studies.children.Stopped: the comparison was told to stop.
    """
    folder, config = study.folder(cell), cell_config(study.options, cell)
    progress = _Progress(folder / "progress.json")
    for step, words in study.steps(cell).items():
        if not progress.is_done(step):
            progress.start(step, words)
            progress.end(step, children.run(words, folder / "compare.log"))
        elif step == TRAIN:
            _refuse(folder, _changed(folder, config))
        else:
            was = progress.state[step].get("words", words)
            only = [word for word in was if word not in words]
            _refuse(folder, [(step, (only, [word for word in words if word not in was]))])
    records = study.make_records(cell, config, progress.state)
    write_json(folder / "record.json", records)
    return records


def _changed(folder: Path, config: Config) -> list[tuple[str, tuple[Any, Any]]]:
    """The options that shape a training and differ from those of the one in ``folder``."""
    return [
        (key, (was, now))
        for key, was, now, kind in changes(load_config(folder / "config.yaml"), config)
        if kind != "resumable" or key == "training.epochs"
    ]


def _refuse(folder: Path, found: Sequence[tuple[str, tuple[Any, Any]]]) -> None:
    """:raises UserError: something was another value than it is now."""
    different = [f"{key} ({was!r} -> {now!r})" for key, (was, now) in found if was != now]
    if different:
        raise UserError(
            f"{folder} was made with other options: {', '.join(different)}. Put them back, "
            "remove that folder to run the cell again, or choose another exp_dir"
        )


class _Progress:
    """What was done of a cell, and what it took: by step ``attempts``, ``done`` and times."""

    def __init__(self, path: Path):
        self.path = path
        self.state: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}

    def is_done(self, step: str) -> bool:
        return self.state.get(step, {}).get("done", False)

    def start(self, step: str, words: list[str]) -> None:
        attempts = self.state.get(step, {}).get("attempts", 0) + 1
        self.state[step] = {"attempts": attempts, "done": False, "words": words}
        write_json(self.path, self.state)

    def end(self, step: str, used: dict[str, float]) -> None:
        self.state[step] |= {"done": True, **used}
        write_json(self.path, self.state)
