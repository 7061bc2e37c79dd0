"""The rows of a comparison: what the records of one method at one keep ratio say together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from asrprune.scoring.clusters import Estimate, difference_of, rate_of
from asrprune.studies.options import COMPRESSED, FULL, RANDOM
from asrprune.studies.records import Record

Key = tuple[str, float]  # method, keep


@dataclass
class Row:
    """One method at one keep ratio, on one test set; records by seed."""

    method: str
    keep: float
    records: dict[int, Record]

    def mean(self, name: str) -> float | None:
        """Over the seeds, of those that know it."""
        return _mean(record[name] for record in self.records.values())

    def time(self, name: str = "seconds") -> float | None:
        """The mean of a time over the trainings that were never stopped."""
        whole = (record for record in self.records.values() if record["attempts"] == 1)
        return _mean(record[name] for record in whole)

    @property
    def rate(self) -> Estimate:
        """The error rate."""
        return rate_of(*_counts([self.records[seed] for seed in sorted(self.records)]))


class Summary:
    """The rows of one test set, and how they compare."""

    def __init__(self, records: Sequence[Record], test_set: str):
        self.rows: dict[Key, Row] = {}
        for record in records:
            if record["set"] == test_set:
                key = record["method"], record["keep"]
                self.rows.setdefault(key, Row(*key, {})).records[record["seed"]] = record

    @property
    def full(self) -> Row | None:
        """Full data."""
        return self.rows.get((FULL, 1.0))

    def random(self, row: Row) -> Row | None:
        """The dynamic random draw at the row's keep ratio."""
        return self.rows.get((RANDOM, row.keep))

    def compressed(self, row: Row) -> Row | None:
        """Full data for fewer epochs: the one whose audio is nearest to the row's."""
        hours = row.mean("hours") or 0.0
        found = [
            other
            for (method, _), other in self.rows.items()
            if method == COMPRESSED and set(row.records) <= set(other.records)
        ]
        return min(found, key=lambda other: abs(other.mean("hours") - hours), default=None)

    def difference(self, row: Row, other: Row | None) -> tuple[Estimate, int] | None:
        """The row's error rate minus the other's, over their common seeds, and how many."""
        seeds = _common(row, other)
        if other is row or not seeds:
            return None
        errors, words = _counts([row.records[seed] for seed in seeds])
        others, _ = _counts([other.records[seed] for seed in seeds])
        return difference_of(errors, others, words), len(seeds)

    def ceiling(self, row: Row) -> float | None:
        """Audio of full data over the audio that the row saw: no more than this can be saved."""
        seeds = _common(row, self.full)
        return _ratio(self.full, row, "hours", seeds) if seeds else None

    def speed_up(self, row: Row, of: str = "seconds") -> float | None:
        """Time of full data's training over the row's; of trainings that were never stopped."""
        seeds = self.timed(row)
        return _ratio(self.full, row, of, seeds) if seeds else None

    def timed(self, row: Row) -> list[int]:
        """The seeds whose times can be compared with full data's."""
        return [
            seed
            for seed in _common(row, self.full)
            if row.records[seed]["attempts"] == self.full.records[seed]["attempts"] == 1
        ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _common(row: Row, other: Row | None) -> list[int]:
    return sorted(set(row.records) & set(other.records)) if other else []


def _ratio(above: Row, below: Row, name: str, seeds: list[int]) -> float:
    top = sum(above.records[seed][name] for seed in seeds)
    return top / sum(below.records[seed][name] for seed in seeds)


def _counts(records: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Errors (R, S) and words (S,); the records are of one test set."""
    names = list(records[0]["speakers"])
    errors = np.array([[record["speakers"][name][0] for name in names] for record in records])
    return errors, np.array([records[0]["speakers"][name][1] for name in names])
