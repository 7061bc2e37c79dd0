"""One cell of a comparison: its steps one by one, and the records of what came out.

Each step that is done is written down in the cell's ``progress.json``; a training that was stopped
goes on from its checkpoint. A cell with a whole ``record.json`` is finished. A training whose
options have changed is refused, for it is what costs, and so is one that began with the model of
another cell, if that is another one by now; any other step is done again, with all that depends on
it.
"""

import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.config import Config, changes, load_config
from asrprune.errors import UserError
from asrprune.files import read_json, write_json
from asrprune.studies.children import Children
from asrprune.studies.current import changed
from asrprune.studies.measured import where_it_runs
from asrprune.studies.options import StudyOptions
from asrprune.studies.study import TRAIN, Cell, Record, Study


def cell_config(options: StudyOptions, cell: Cell) -> Config:
    """The configuration that a cell trains with."""
    return load_config(options.config, cell.words)


def finished(study: Study, cell: Cell, data: str | None) -> list[Record] | None:
    """The records of a cell; None if anything is left to do, or to be done again.

    Args:
        data: the digest of the training data; None: it is not there.

    Raises:
        UserError: it was trained with other options or data than it would be now.
    """
    folder = study.folder(cell)
    if not (folder / "record.json").is_file():
        return None
    records = read_json(folder / "record.json")
    _refuse(folder, _changed_options(folder, cell_config(study.options, cell)))
    _refuse(folder, [("the training data", (records[0]["data"], data or records[0]["data"]))])
    _refuse(folder, _Progress(study, cell).changed_sources())
    by_key = {study.key(r): r for r in records if not changed(study, cell, r)}
    expected = study.expected(cell)
    if not by_key.keys() >= set(expected) or _Progress(study, cell).left():
        return None
    return [by_key[key] for key in expected]


def run_cell(study: Study, cell: Cell, children: Children, data: str) -> list[Record]:
    """Do what is left of a cell; returns its records.

    Args:
        data: the digest of the training data.

    Raises:
        UserError: a step failed, or it was trained with other options or data.
        asrprune.studies.children.Stopped: the comparison was told to stop.
    """
    folder, config = study.folder(cell), cell_config(study.options, cell)
    progress, known = _Progress(study, cell), folder / "record.json"
    if progress.is_done(TRAIN):
        _refuse(folder, _changed_options(folder, config))
        if known.is_file():
            records = read_json(known)
            progress.learn(records[0])
            if any(changed(study, cell, record) for record in records):
                progress.forget_wordless()
        was = progress.state[TRAIN].get("data", data)
        _refuse(folder, [("the training data", (was, data))])
    _refuse(folder, progress.changed_sources())
    known.unlink(missing_ok=True)  # from here on it is of what is being replaced
    while left := progress.left():
        words = progress.steps[left[0]]
        progress.start(left[0])
        progress.end(left[0], children.run(words, folder / "compare.log"))
    progress.learn({"data": data, **where_it_runs()})
    records = study.make_records(cell, config, progress.state)
    write_json(known, records)
    return records


def _changed_options(folder: Path, config: Config) -> list[tuple[str, tuple[Any, Any]]]:
    """The options that shape a training and differ from those of the one in ``folder``."""
    return [
        (key, (was, now))
        for key, was, now, kind in changes(load_config(folder / "config.yaml"), config)
        if kind != "resumable" or key == "training.epochs"
    ]


def _refuse(folder: Path, found: Sequence[tuple[str, tuple[Any, Any]]]) -> None:
    """Refuse a cell whose values have changed since it was made.

    Args:
        folder: of the cell.
        found: (name, (value then, value now)) of each value to compare.

    Raises:
        UserError: a value has changed.
    """
    different = [f"{key} ({was!r} -> {now!r})" for key, (was, now) in found if was != now]
    if different:
        raise UserError(
            f"{folder} was made with other options: {', '.join(different)}. Put them back, "
            "remove that folder to run the cell again, or choose another exp_dir"
        )


def _model_of(folder: Path) -> str | None:
    """What tells the model in a cell's folder from any other one; None where there is none."""
    path = folder / "progress.json"
    if not path.is_file():
        return None
    state = read_json(path)
    if (run := state.get(TRAIN, {}).get("run")) is None:
        return None
    return shlex.join([run, *state.get("average", {}).get("words", [])])


class _Progress:
    """What was done of a cell, and what it took: by step ``attempts``, ``done``, ``words``, times.

    A training's entry also says what data, code and machine it was done with, has a name of its
    own (``run``), and says which models of other cells it began with (``sources``).
    """

    def __init__(self, study: Study, cell: Cell):
        self.path = study.folder(cell) / "progress.json"
        self.sources = {name: _model_of(study.folder(cell).with_name(name)) for name in cell.after}
        self.steps, self.needs = study.steps(cell), study.needs(cell)
        self.state: dict[str, dict[str, Any]] = read_json(self.path) if self.path.is_file() else {}

    def is_done(self, step: str) -> bool:
        """In whatever words."""
        return self.state.get(step, {}).get("done", False)

    def left(self) -> list[str]:
        """The steps that are not done, or were done in other words than they would be now."""
        return [step for step, words in self.steps.items() if not self._is_done_as(step, words)]

    def start(self, step: str) -> None:
        """Note that a step is begun; what depends on it is no longer done."""
        before = self.state.get(step, {"done": True})
        attempts = 1 if before["done"] else before["attempts"] + 1
        self.state[step] = {"attempts": attempts, "done": False, "words": self.steps[step]}
        if step == TRAIN:
            self.state[step] |= {"run": before.get("run") or secrets.token_hex(8)}
            self.state[step] |= {"sources": before.get("sources") or self.sources}
        gone = {step}
        for later in self.steps:  # in their order, what is between comes before
            if self.needs.get(later) in gone:
                gone.add(later)
        # of a step that is none any more nobody knows what it depends on
        kept = (self.steps.keys() - gone) | {step}
        self.state = {name: entry for name, entry in self.state.items() if name in kept}
        write_json(self.path, self.state)

    def end(self, step: str, used: dict[str, float]) -> None:
        """Note that it is done, and what it took."""
        self.state[step] |= {"done": True, **used}
        if step == TRAIN:
            self.state[step] |= where_it_runs()
        write_json(self.path, self.state)

    def changed_sources(self) -> list[tuple[str, tuple[Any, Any]]]:
        """The cells that the training began with, and which of their models that was and is.

        One whose folder is gone cannot have changed.
        """
        then = self.state.get(TRAIN, {}).get("sources", {})
        return [
            (f"the model of {name}", (was, now))
            for name, was in then.items()
            if (now := self.sources.get(name)) is not None
        ]

    def learn(self, of_training: Record) -> None:
        """Add what the training's entry does not know yet."""
        names = ("data", "git", "machine")
        self.state[TRAIN] = {name: of_training[name] for name in names} | self.state[TRAIN]
        write_json(self.path, self.state)

    def forget_wordless(self) -> None:
        """Do again what does not say in what words it was done; the training aside."""
        self.state = {
            step: entry for step, entry in self.state.items() if step == TRAIN or "words" in entry
        }

    def _is_done_as(self, step: str, words: list[str]) -> bool:
        # a training's options are compared by its config, and words were not always written down
        known = step == TRAIN or self.state.get(step, {}).get("words", words) == words
        return self.is_done(step) and known
