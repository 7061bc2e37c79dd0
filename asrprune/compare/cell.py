"""Runs the steps of one cell of a comparison, and makes the records of its results.

The cell's ``progress.json`` lists the steps that are done. A training that was stopped goes on from
its checkpoint. A cell is finished if no step is left and ``record.json`` has all of its records.

Training is the expensive step, so a finished training is never repeated silently. The cell is
refused if the options or the data of the training have changed. It is also refused if the training
began with the model of another cell, and that model has changed. Any other changed step is run
again, with all steps that depend on it.
"""

import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.compare.children import Children
from asrprune.compare.current import changed, changed_inputs, inputs
from asrprune.compare.measured import where_it_runs
from asrprune.compare.options import StudyOptions
from asrprune.compare.study import TRAIN, Cell, Record, Study
from asrprune.config import Config, changes, load_config


def cell_config(options: StudyOptions, cell: Cell) -> Config:
    """Return the configuration of a cell's training."""
    return load_config(options.config, cell.overrides)


def finished(study: Study, cell: Cell, data: str | None) -> list[Record] | None:
    """Return the records of a cell; None if a step is left to run or has to run again.

    Args:
        study: the comparison.
        cell: the cell.
        data: the digest of the training data; None while there is no data.

    Raises:
        UserError: the options or the data of the training, or a model that it began with, have
            changed since the cell was trained.
    """
    folder = study.folder(cell)
    if not (folder / "record.json").is_file():
        return None
    records = read_json(folder / "record.json")
    _refuse(folder, _changed_options(folder, cell_config(study.options, cell)))
    _refuse(folder, [("the training data", (records[0]["data"], data or records[0]["data"]))])
    _refuse(folder, _Progress(study, cell).changed_sources())
    today = inputs(study, cell)
    by_key = {study.key(r): r for r in records if not changed(study, cell, r, today)}
    expected = study.expected(cell)
    if not by_key.keys() >= set(expected) or _Progress(study, cell).left():
        return None
    return [by_key[key] for key in expected]


def run_cell(study: Study, cell: Cell, children: Children, data: str) -> list[Record]:
    """Run the steps of a cell that are left, and return the cell's records.

    Args:
        study: the comparison.
        cell: the cell.
        children: runs the steps.
        data: the digest of the training data.

    Raises:
        UserError: a step failed; or the options or the data of the training, or a model that it
            began with, have changed since the cell was trained.
        asrprune.compare.children.Stopped: the comparison was told to stop.
    """
    folder, config = study.folder(cell), cell_config(study.options, cell)
    progress, known = _Progress(study, cell), folder / "record.json"
    if progress.is_done(TRAIN):
        _refuse(folder, _changed_options(folder, config))
        _refuse(folder, [("the training data", (progress.state[TRAIN]["data"], data))])
    _refuse(folder, progress.changed_sources())
    known.unlink(missing_ok=True)  # the steps below replace the results that it describes
    while left := progress.left():
        words = progress.steps[left[0]]
        progress.start(left[0], data)
        used = children.run(words, folder / "compare.log")
        progress.end(left[0], used, where_it_runs(children.threads, children.jobs))
    records = [
        record | {"inputs": progress.inputs}
        for record in study.make_records(cell, config, progress.state)
    ]
    write_json(known, records)
    return records


def _changed_options(folder: Path, config: Config) -> list[tuple[str, tuple[Any, Any]]]:
    """Return the options that shape a training and differ from the training in ``folder``.

    Returns:
        (option, (value of the training in ``folder``, value in ``config``)) of each option.
    """
    return [
        (key, (was, now))
        for key, was, now, kind in changes(load_config(folder / "config.yaml"), config)
        if kind != "resumable" or key == "training.epochs"
    ]


def _refuse(folder: Path, found: Sequence[tuple[str, tuple[Any, Any]]]) -> None:
    """Refuse a cell whose values have changed since it was made.

    Args:
        folder: the folder of the cell.
        found: (name, (value then, value now)) of each value to compare.

    Raises:
        UserError: a value has changed.
    """
    different = [f"{key} ({was!r} -> {now!r})" for key, (was, now) in found if was != now]
    if different:
        raise UserError(
            f"{folder} was made with other options, data or models: {', '.join(different)}. Put "
            "them back, remove that folder to run the cell again, or choose another exp_dir."
        )


def _model_of(folder: Path) -> str | None:
    """Return an identifier of the model in a cell's folder; None if the folder has no model."""
    path = folder / "progress.json"
    if not path.is_file():
        return None
    state = read_json(path)
    if (run := state.get(TRAIN, {}).get("run")) is None:
        return None
    return shlex.join([run, *state.get("average", {}).get("words", [])])


class _Progress:
    """The state of a cell's steps, as in ``progress.json``.

    The entry of a step has ``attempts``, ``done``, ``words`` (the arguments of the command),
    ``inputs`` (`asrprune.compare.current.inputs`) and times. ``attempts`` is 1 for a training that
    ran from its start to its end without a stop. The entry of a training also has the data, the
    code and the machine, a random identifier (``run``), and the models of other cells that it began
    with (``sources``).
    """

    def __init__(self, study: Study, cell: Cell):
        self.path = study.folder(cell) / "progress.json"
        self.sources = {name: _model_of(study.folder(cell).with_name(name)) for name in cell.after}
        self.steps, self.needs = study.steps(cell), study.needs(cell)
        self.inputs = inputs(study, cell)
        self.state: dict[str, dict[str, Any]] = read_json(self.path) if self.path.is_file() else {}

    def is_done(self, step: str) -> bool:
        """Return whether a step is done, with any arguments."""
        return self.state.get(step, {}).get("done", False)

    def left(self) -> list[str]:
        """Return the steps that are not done, or were done with other arguments than today's."""
        return [step for step, words in self.steps.items() if not self._is_done_as(step, words)]

    def start(self, step: str, data: str) -> None:
        """Note that a step begins. Steps that depend on it no longer count as done.

        Args:
            step: the step.
            data: the digest of the training data.
        """
        before = self.state.get(step, {"done": True})
        attempts = 1 if before["done"] else before["attempts"] + 1
        if step == TRAIN:  # a training without a checkpoint begins anew; with one it goes on
            folder = self.path.parent
            begun = any(any(folder.glob(f"{kind}-*.pt")) for kind in ("checkpoint", "epoch"))
            attempts = max(2, attempts) if begun else 1
        self.state[step] = {"attempts": attempts, "done": False, "words": self.steps[step]}
        self.state[step] |= {"inputs": self.inputs}
        if step == TRAIN:
            self.state[step] |= {"run": before.get("run") or secrets.token_hex(8)}
            self.state[step] |= {"sources": before.get("sources") or self.sources}
            self.state[step] |= {"data": data}
        gone = {step}
        for later in self.steps:  # in order: what a step needs has been seen before it
            if self.needs.get(later) in gone:
                gone.add(later)
        # The entry of a step that no longer exists goes too: what it depends on is unknown.
        kept = (self.steps.keys() - gone) | {step}
        self.state = {name: entry for name, entry in self.state.items() if name in kept}
        write_json(self.path, self.state)

    def end(self, step: str, used: dict[str, float], place: Record) -> None:
        """Note that a step is done, the time it took, and for a training where it ran."""
        self.state[step] |= {"done": True, **used}
        if step == TRAIN:
            self.state[step] |= place
        write_json(self.path, self.state)

    def changed_sources(self) -> list[tuple[str, tuple[Any, Any]]]:
        """Return the models that the training began with, as they were then and are now.

        A cell without a model today is left out.

        Returns:
            (name, (identifier then, identifier now)) of each model.
        """
        then = self.state.get(TRAIN, {}).get("sources", {})
        return [
            (f"the model of {name}", (was, now))
            for name, was in then.items()
            if (now := self.sources.get(name)) is not None
        ]

    def _is_done_as(self, step: str, words: list[str]) -> bool:
        if step == TRAIN:  # compared by its configuration
            return self.is_done(step)
        if not self.is_done(step) or self.state[step]["words"] != words:
            return False
        before = self.state[step].get("inputs", {})
        return not any(name.startswith("set ") for name in changed_inputs(before, self.inputs))
