"""Brings the times of trainings on several machines to the pace of one machine.

A training takes longer on a slower machine, so times of two machines cannot be compared. If both
machines ran trainings of the same type, the ratio of the CPU times of these trainings is the ratio
of the paces.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from asrprune.compare.study import Record

TIMES = ("seconds", "cpu_seconds", "epoch_seconds", "loading_seconds")
LEGEND = (
    " Times are scaled to the pace of the machine that ran most of the trainings. The scale is the "
    "ratio of the CPU times of trainings that both machines ran. A machine counts as another one "
    "after each restart, and with other numbers of threads and of trainings at a time."
)


def timed(record: Record) -> bool:
    """Return whether a record's times can be compared with other times.

    They cannot if the training was stopped on its way, or if its machine ran no type of training
    that `at_one_pace` can compare.
    """
    return record["attempts"] == 1 and record["cpu_seconds"] is not None


def at_one_pace(records: Sequence[Record], type_of: Callable[[Record], Hashable]) -> list[Record]:
    """Return the records with all times at the pace of the machine that ran most of them.

    Args:
        records: records of one test set.
        type_of: returns the same value for records of trainings that differ in their seeds only.

    Returns:
        The records in their order. The times `TIMES` are None if the machine has no type of
        training in common with that machine. Trainings that were stopped do not count.
    """
    machines: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        machines[machine_of(record)].append(record)
    if len(machines) < 2:
        return list(records)
    means = {name: _means(some, type_of) for name, some in machines.items()}
    usual = max(machines, key=lambda name: sum(map(timed, machines[name])))
    scales = {name: _scale(means[usual], means[name]) for name in machines}
    return [_scaled(record, scales[machine_of(record)]) for record in records]


def pace_legend(records: Sequence[Record]) -> str:
    """Return sentences on the times of several machines; empty if all records are of one."""
    return LEGEND if len(set(map(machine_of, records))) > 1 else ""


def machine_of(record: Record) -> str:
    """Return a text that is the same for all records of one machine."""
    return json.dumps(record["machine"], sort_keys=True)


def _means(
    records: Sequence[Record], type_of: Callable[[Record], Hashable]
) -> dict[Hashable, float]:
    """Return the mean CPU time of each type of training that was not stopped."""
    found: dict[Hashable, list[float]] = defaultdict(list)
    for record in records:
        if timed(record):
            found[type_of(record)].append(record["cpu_seconds"])
    return {name: sum(values) / len(values) for name, values in found.items()}


def _scale(usual: dict[Hashable, float], own: dict[Hashable, float]) -> float | None:
    """Return the usual machine's time over another machine's time, a geometric mean over types.

    The result is None if no type of training is in both.
    """
    logs = [math.log(usual[name] / own[name]) for name in usual if name in own]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _scaled(record: Record, scale: float | None) -> Record:
    times = {name: record[name] for name in TIMES if name in record}
    return record | {
        name: None if scale is None or value is None else scale * value
        for name, value in times.items()
    }
