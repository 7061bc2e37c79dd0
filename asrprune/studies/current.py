"""Which records are those that a grid would leave today: by the same words, of the same data."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from asrprune.studies.study import Cell, Record, Study


def changed(study: Study, cell: Cell, record: Record) -> list[str]:
    """What the record of a cell says of how it was made that is not so today, by name."""
    wanted = study.made_by(cell, study.key(record))
    return [name for name, now in wanted.items() if not _same(name, record.get(name), now)]


def divide(
    study: Study, cells: Sequence[Cell], records: Sequence[Record], data: str | None = None
) -> tuple[list[Record], list[str]]:
    """The records that the grid would leave today, in its order; and the cells of outdated ones.

    Records of what the grid has not are neither. Of a cell and key, the last record counts.

    Args:
        data: the digest of the training data; None: that of most records.
    """
    asked = {(cell.name, key): cell for cell in cells for key in study.expected(cell)}
    found = {(study.cell_name(record), study.key(record)): record for record in records}
    found = {place: found[place] for place in asked if place in found}
    if data is None and found:
        [(data, _)] = Counter(record["data"] for record in found.values()).most_common(1)
    fresh, outdated = [], []
    for place, record in found.items():
        if record["data"] == data and not changed(study, asked[place], record):
            fresh.append(record)
        else:
            outdated.append(place[0])
    return fresh, list(dict.fromkeys(outdated))


def recorded(
    study: Study, cell: Cell, records: Sequence[Record], data: str | None = None
) -> list[Record] | None:
    """The records of a cell, if all that it would leave today are among some; else None.

    Args:
        data: as of `divide`.
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
    """The words of a training but for the folder it is in, and what it changes of its config."""
    words = shlex.split(command)
    if "--exp-dir" in words:
        place = words.index("--exp-dir")
        del words[place : place + 2]
    changes = [word for word in words if "=" in word]
    return (
        [word for word in words if "=" not in word],
        dict(word.split("=", 1) for word in changes),
    )
