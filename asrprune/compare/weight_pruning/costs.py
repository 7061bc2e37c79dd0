"""The costs of each method for models of all sizes: trainings, passes, times, and the search."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.compare.study import Record
from asrprune.compare.weight_pruning.grid import TABLES, NetworksCell
from asrprune.compare.weight_pruning.options import DENSE


@dataclass(frozen=True)
class Cost:
    """The cost of all networks of a method with one seed: their trainings and one search.

    The times are None if a training was stopped, because a part of its time is then unknown. The
    seconds of a search are those of all its evaluations. Two searches may share evaluations; both
    then count them. The CPU seconds of evaluations are not known.
    """

    trainings: int
    passes: int | None  # forward and backward; a teacher's forward pass counts a third
    training_seconds: float | None
    training_cpu_seconds: float | None
    evaluations: int
    search_seconds: float

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds of trainings and search; None if unknown."""
        return _sum([self.training_seconds, self.search_seconds])

    @property
    def cpu_seconds(self) -> float | None:
        """CPU seconds of the trainings; None if unknown, as with a search."""
        return None if self.evaluations else self.training_cpu_seconds


def costs_of(
    method: str, cells: Sequence[NetworksCell], records: Sequence[Record]
) -> dict[int, Cost]:
    """Return seed -> the cost of all networks of a method.

    A seed is left out if one of its trainings, or its search, has not been run. A training that
    others begin with counts for them, too. Where a method trains each sparsity by itself, the dense
    training counts as the one of sparsity 0.
    """
    own = [cell for cell in cells if _makes(method, cell)]
    needed: dict[int, set[str]] = {}
    for cell in own:
        needed.setdefault(cell.seed, set()).update([cell.name, *cell.after])
    # trained for one size each: the dense training is the one of sparsity 0
    if not any(network.sparsity == 0 for cell in own for network in cell.networks):
        for cell in cells:
            if cell.method == DENSE and cell.seed in needed:
                needed[cell.seed].add(cell.name)
    by_training: dict[str, list[Record]] = {}
    for record in records:
        by_training.setdefault(record["training"], []).append(record)
    return {
        seed: _cost(method, [by_training[name] for name in sorted(names)])
        for seed, names in needed.items()
        if names <= by_training.keys()
        and (
            method not in TABLES  # else its search has been run, too
            or any(record["method"] == method for name in names for record in by_training[name])
        )
    }


def _makes(method: str, cell: NetworksCell) -> bool:
    """Return whether the networks of a method come from a cell."""
    if method == DENSE:
        return cell.method == DENSE
    return any(network.method == method for network in cell.networks)


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
    # a backward pass costs about two forward passes
    teachers = sum(record["teacher_passes"] or 0 for record in trainings)
    return sum(counted) + round(teachers / 3)


def _whole(took: Record, name: str) -> float | None:
    return took[name] if took["attempts"] == 1 else None


def _sum(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values)
