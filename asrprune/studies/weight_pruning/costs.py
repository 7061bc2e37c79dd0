"""What each way to models of all sizes takes: trainings, passes, times, and the search."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.studies.study import Record
from asrprune.studies.weight_pruning.grid import TABLES, NetworksCell
from asrprune.studies.weight_pruning.options import DENSE, GRADUAL, ONE_SHOT


@dataclass(frozen=True)
class Cost:
    """Of all that one seed's networks of a method need, in trainings and in one search.

    A training's times are None where it was stopped and went on, which hides a part of them. A
    search's seconds are those of all its evaluations, whenever and for whatever they were done: two
    searches that share some of them both bear them. Their CPU seconds nobody knows.
    """

    trainings: int
    passes: int | None  # forward and backward; those of a teacher, forward only, count a third
    training_seconds: float | None
    training_cpu_seconds: float | None
    evaluations: int
    search_seconds: float

    @property
    def seconds(self) -> float | None:
        """Of trainings and search."""
        return _sum([self.training_seconds, self.search_seconds])

    @property
    def cpu_seconds(self) -> float | None:
        """Of trainings; None where a search comes to it."""
        return None if self.evaluations else self.training_cpu_seconds


def costs_of(
    method: str, cells: Sequence[NetworksCell], records: Sequence[Record]
) -> dict[int, Cost]:
    """Seed -> the cost of all networks of a method, where its trainings and search have been run.

    The dense model is one of the gradually pruned ones: that of sparsity 0.
    """
    needed: dict[int, set[str]] = {}
    for cell in cells:
        if _part_of(method, cell):
            needed.setdefault(cell.seed, set()).add(cell.name)
    by_training: dict[str, list[Record]] = {}
    for record in records:
        by_training.setdefault(record["training"], []).append(record)
    return {
        seed: _cost(method, [by_training[name] for name in sorted(names)])
        for seed, names in needed.items()
        if all(_is_there(method, by_training.get(name, [])) for name in names)
    }


def _part_of(method: str, cell: NetworksCell) -> bool:
    ways = {(network.method, network.sparsity) for network in cell.networks}
    if method == GRADUAL and (ONE_SHOT, 0.0) in ways:
        return True
    return method in {DENSE: {cell.method}}.get(method, {way for way, _ in ways})


def _is_there(method: str, records: list[Record]) -> bool:
    """Whether a training has been run, and the search, if the method is one."""
    if method in TABLES:
        return any(record["method"] == method for record in records)
    return bool(records)


def _cost(method: str, trainings: list[list[Record]]) -> Cost:
    firsts = [records[0] for records in trainings]
    searches = [
        next((record["search"] for record in records if record["method"] == method), None)
        for records in trainings
    ]
    search = next((one for one in searches if one), None)
    return Cost(
        len(trainings),
        _passes(firsts),
        _sum([_whole(record, "seconds") for record in firsts]),
        _sum([_whole(record, "cpu_seconds") for record in firsts]),
        search["evaluations"] if search else 0,
        search["evaluation_seconds"] if search else 0.0,
    )


def _passes(trainings: list[Record]) -> int | None:
    counted = [record["passes"] for record in trainings]
    if None in counted:
        return None
    # a backward pass costs about two forward ones
    teachers = sum(record["teacher_passes"] or 0 for record in trainings)
    return sum(counted) + round(teachers / 3)


def _whole(took: Record, name: str) -> float | None:
    return took[name] if took["attempts"] == 1 else None


def _sum(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values)
