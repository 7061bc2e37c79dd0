"""Tells current records from outdated ones.

A record is current if the grid would make it today in the same way and from the same data.
"""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from asrprune.compare.measured import digest_of_config, digests_of_sets
from asrprune.compare.study import Cell, Record, Study
from asrprune.config import load_config


def inputs(study: Study, cell: Cell) -> dict[str, str]:
    """Return digests of the files, besides the training data, that decide a cell's results.

    These are the configuration file and, if they are there, the test and development sets.
    """
    corpus = load_config(study.options.config, cell.overrides).data.corpus
    sets = digests_of_sets(study.options, corpus)
    return {"the configuration file": digest_of_config(study.options.config)} | sets


def changed(study: Study, cell: Cell, record: Record, today: dict[str, str]) -> list[str]:
    """Return the names of a record's values on how it was made that differ from today's.

    Args:
        study: the comparison.
        cell: the cell of the record.
        record: the record.
        today: what `inputs` returns today. An input that is missing now or then is not compared.
    """
    wanted = study.made_by(cell, study.key(record))
    found = [name for name, now in wanted.items() if not _same(name, record.get(name), now)]
    return found + changed_inputs(record.get("inputs", {}), today)


def changed_inputs(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the names of the inputs whose digests differ."""
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def divide(
    study: Study, cells: Sequence[Cell], records: Sequence[Record], data: str | None = None
) -> tuple[list[Record], list[str]]:
    """Divide records into current and outdated ones.

    Records that belong to no cell of the grid are left out. Of several records with the same cell
    and key, the last record counts.

    Args:
        study: the comparison.
        cells: the cells of the grid.
        records: the records to divide.
        data: the digest of the training data; None: the digest that most records have.

    Returns:
        The current records in the order of the grid, and the names of the cells that have outdated
        records.
    """
    asked = {(cell.name, key): cell for cell in cells for key in study.expected(cell)}
    found = {(study.cell_name(record), study.key(record)): record for record in records}
    found = {place: found[place] for place in asked if place in found}
    if data is None and found:
        [(data, _)] = Counter(record["data"] for record in found.values()).most_common(1)
    fresh, outdated = [], []
    today = inputs(study, cells[0]) if cells else {}
    for place, record in found.items():
        if record["data"] == data and not changed(study, asked[place], record, today):
            fresh.append(record)
        else:
            outdated.append(place[0])
    return fresh, list(dict.fromkeys(outdated))


def recorded(
    study: Study, cell: Cell, records: Sequence[Record], data: str | None = None
) -> list[Record] | None:
    """Return the current records of a cell; None if any of the cell's records is missing.

    Args:
        study: the comparison.
        cell: the cell.
        records: the records to choose from.
        data: the digest of the training data; None: the digest that most records have.
    """
    fresh, _ = divide(study, [cell], records, data)
    return fresh if len(fresh) == len(study.expected(cell)) else None


def _same(name: str, was: Any, now: Any) -> bool:
    if name == "command" and was is not None:
        return _meaning(was) == _meaning(now)
    if isinstance(now, dict):
        return isinstance(was, dict) and was | now == was
    return was == now


def _meaning(command: str) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of a training's command, without ``--exp-dir``, and its overrides.

    ``training.epochs`` is left out, because a record has its number of epochs as a value.
    """
    words = shlex.split(command)
    if "--exp-dir" in words:
        place = words.index("--exp-dir")
        del words[place : place + 2]
    changes = dict(word.split("=", 1) for word in words if "=" in word)
    changes.pop("training.epochs", None)
    return [word for word in words if "=" not in word], changes
