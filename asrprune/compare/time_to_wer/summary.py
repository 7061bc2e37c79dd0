"""The rows of a comparison of costs, one for each method and length of training; their curves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.compare.data_pruning.options import FULL
from asrprune.compare.pace import at_one_pace, timed
from asrprune.compare.rows import RatioEstimate, Row
from asrprune.compare.study import Record
from asrprune.compare.time_to_wer.curve import Curve, Draws, cost_ratios
from asrprune.compare.time_to_wer.options import CPU


@dataclass
class LengthRow(Row):
    """One method at one length of training, on one test set."""

    method: str
    epochs: int

    def cost(self, measure: str) -> float | None:
        """Return the mean cost; None if there is no CPU time that can be compared."""
        return self.time(measure) if measure == CPU else self.mean(measure)


class Summary:
    """The rows of one test set, and ratios of the methods' costs at equal error rates."""

    def __init__(self, records: Sequence[Record], test_set: str):
        self.rows: dict[tuple[str, int], LengthRow] = {}
        of_set = [record for record in records if record["set"] == test_set]
        for record in at_one_pace(of_set, _key):
            key = _key(record)
            self.rows.setdefault(key, LengthRow({}, *key)).records[record["seed"]] = record

    def lengths(self, method: str) -> list[LengthRow]:
        """Return the rows of a method, the shortest training first."""
        return [self.rows[key] for key in sorted(self.rows) if key[0] == method]

    def seeds(self, method: str) -> list[int]:
        """Return the seeds that all lengths of a method and of full data have."""
        rows = [*self.lengths(method), *self.lengths(FULL)]
        return sorted(set.intersection(*(set(row.records) for row in rows))) if rows else []

    def ratios(self, method: str, measure: str) -> dict[int, RatioEstimate]:
        """Return full data's cost over the method's, at the error rate of each length of full data.

        Args:
            method: the name of a method other than full data.
            measure: the value of a record that is the cost, such as ``cpu_seconds``.

        Returns:
            Epochs of full data -> ratio. The result is empty in three cases: the method or full
            data has fewer than two lengths; they have no common seeds; or, for CPU time, no
            training of some length has a time that can be compared.
        """
        seeds, of_full, own = self.seeds(method), self.lengths(FULL), self.lengths(method)
        if not seeds or min(len(of_full), len(own)) < 2:
            return {}
        curves = [_curve(rows, seeds, measure) for rows in (of_full, own)]
        if any(np.isnan(curve.costs).all(1).any() for curve in curves):
            return {}
        record = of_full[0].records[seeds[0]]
        words = np.array([words for _, words in record["speakers"].values()])
        found = cost_ratios(*curves, Draws(len(seeds), words))
        return {row.epochs: ratio for row, ratio in zip(of_full, found, strict=True)}


def _key(record: Record) -> tuple[str, int]:
    return record["method"], record["epochs"]


def _curve(rows: Sequence[LengthRow], seeds: Sequence[int], measure: str) -> Curve:
    """Return the curve of a method from its rows, the shortest training first."""
    names = list(rows[0].records[seeds[0]]["speakers"])
    costs = [[_cost(row.records[seed], measure) for seed in seeds] for row in rows]
    errors = [
        [[row.records[seed]["speakers"][name][0] for name in names] for seed in seeds]
        for row in rows
    ]
    return Curve(np.array(costs, np.float64), np.array(errors, np.float64))


def _cost(record: Record, measure: str) -> float:
    """Return the cost of a record's training; NaN for a CPU time that cannot be compared."""
    return float("nan") if measure == CPU and not timed(record) else record[measure]
