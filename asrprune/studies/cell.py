"""One cell of a comparison: train, average, decode, score, and a record of what came out.

Each step that is done is written down in the cell's ``progress.json``; a training that was stopped
goes on from its checkpoint. A cell with a ``record.json`` is finished.
"""

import shlex
from pathlib import Path
from typing import Any

from asrprune.config import Config, changes, load_config
from asrprune.errors import UserError
from asrprune.files import read_json, write_json
from asrprune.studies.children import Children
from asrprune.studies.grid import Cell
from asrprune.studies.options import StudyOptions
from asrprune.studies.records import Record, make_records, training_data_digest

TRAIN = "train"


def folder_of(study: StudyOptions, cell: Cell) -> Path:
    """Where a cell's training, results and record are."""
    return Path(study.exp_dir, cell.name)


def commands_of(study: StudyOptions, cell: Cell) -> dict[str, list[str]]:
    """Step -> the words after ``asrprune``, in order."""
    folder = str(folder_of(study, cell))
    data = ["--manifest-dir", study.manifest_dir, "--lang-dir", study.lang_dir]
    search = ["--test-sets", *study.test_sets, "--decoding-method", study.decoding_method]
    average = ["--epoch", str(cell.epochs), "--avg", str(min(study.avg, cell.epochs))]
    return {
        TRAIN: ["train", "--config", study.config, "--exp-dir", folder, *data, *cell.words],
        "average": ["average", "--exp-dir", folder, *average],
        "decode": ["decode", "--exp-dir", folder, *data, *search],
        "score": ["score", "--exp-dir", folder, *search],
    }


def cell_config(study: StudyOptions, cell: Cell) -> Config:
    """The configuration that a cell trains with."""
    return load_config(study.config, cell.words)


def finished(study: StudyOptions, cell: Cell) -> list[Record] | None:
    """The records of a cell, one a test set; None if it is not finished.

    :raises UserError: it was trained or tested with other options or data than it would be now.
    """
    folder = folder_of(study, cell)
    if not (folder / "record.json").is_file():
        return None
    records = read_json(folder / "record.json")
    config = cell_config(study, cell)
    differences = [
        f"{key} ({was!r} -> {now!r})"
        for key, was, now, kind in changes(load_config(folder / "config.yaml"), config)
        if kind != "resumable" or key == "training.epochs"
    ]
    told = {
        "test_sets": ([record["set"] for record in records], list(study.test_sets)),
        "decoding_method": (records[0]["decoding_method"], study.decoding_method),
        "avg": (records[0]["avg"], min(study.avg, cell.epochs)),
        "the training data": (records[0]["data"], training_data_digest(study, config)),
    }
    differences += [f"{key} ({was!r} -> {now!r})" for key, (was, now) in told.items() if was != now]
    if differences:
        raise UserError(
            f"{folder} was made with other options: {', '.join(differences)}. Put them back, "
            "remove that folder to run the cell again, or choose another exp_dir"
        )
    return records


def run_cell(study: StudyOptions, cell: Cell, children: Children) -> list[Record]:
    """Do what is left of a cell; returns its records.

    :raises UserError: a step failed.
    :raises asrprune.studies.children.Stopped: the comparison was told to stop.
    """
    folder = folder_of(study, cell)
    progress = _Progress(folder / "progress.json")
    commands = commands_of(study, cell)
    for step, words in commands.items():
        if not progress.is_done(step):
            progress.start(step)
            progress.end(step, children.run(words, folder / "compare.log"))
    command = shlex.join(["asrprune", *commands[TRAIN]])
    records = make_records(study, cell, cell_config(study, cell), folder, command, progress.state)
    write_json(folder / "record.json", records)
    return records


class _Progress:
    """What was done of a cell, and what it took: by step ``attempts``, ``done`` and times."""

    def __init__(self, path: Path):
        self.path = path
        self.state: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}

    def is_done(self, step: str) -> bool:
        return self.state.get(step, {}).get("done", False)

    def start(self, step: str) -> None:
        attempts = self.state.get(step, {}).get("attempts", 0) + 1
        self.state[step] = {"attempts": attempts, "done": False}
        write_json(self.path, self.state)

    def end(self, step: str, used: dict[str, float]) -> None:
        self.state[step] |= {"done": True, **used}
        write_json(self.path, self.state)
