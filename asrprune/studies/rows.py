"""The records of one row of a comparison together, and how two rows compare."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrprune.scoring.clusters import COVERAGE, POWER, Estimate, difference_of, rate_of
from asrprune.studies.study import Record


@dataclass
class Row:
    """What was measured in one way with some seeds, on one test set; records by seed."""

    records: dict[int, Record]

    def mean(self, name: str) -> float | None:
        """Over the seeds, of those that know it."""
        return mean(record.get(name) for record in self.records.values())

    def time(self, name: str = "seconds") -> float | None:
        """The mean of a time over the trainings that were never stopped."""
        whole = (record for record in self.records.values() if record["attempts"] == 1)
        return mean(record.get(name) for record in whole)

    def waiting(self) -> float | None:
        """Return the share of the epochs' wall-clock time that steps waited for batches."""
        epochs, loading = self.time("epoch_seconds"), self.time("loading_seconds")
        return loading / epochs if epochs and loading is not None else None

    def start_and_end(self) -> float | None:
        """Return the seconds of a training outside of its epochs."""
        seconds, epochs = self.time(), self.time("epoch_seconds")
        return None if seconds is None or epochs is None else seconds - epochs

    @property
    def rate(self) -> Estimate:
        """The error rate."""
        return rate_of(*_counts([self.records[seed] for seed in sorted(self.records)]))


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def common_seeds(row: Row, other: Row | None) -> list[int]:
    """The seeds of both."""
    return sorted(set(row.records) & set(other.records)) if other else []


def difference(
    row: Row, other: Row | None, coverage: float = COVERAGE
) -> tuple[Estimate, int] | None:
    """The row's error rate minus the other's, over their common seeds, and how many.

    None of a row and itself, and without common seeds.

    Args:
        coverage: of the interval.
    """
    seeds = common_seeds(row, other)
    if other is row or not seeds:
        return None
    errors, words = _counts([row.records[seed] for seed in seeds])
    others, _ = _counts([other.records[seed] for seed in seeds])
    return difference_of(errors, others, words, coverage), len(seeds)


def timed_seeds(row: Row, other: Row | None) -> list[int]:
    """The common seeds whose trainings both were never stopped, so that times compare."""
    return [
        seed
        for seed in common_seeds(row, other)
        if row.records[seed]["attempts"] == other.records[seed]["attempts"] == 1
    ]


def ratio(above: Row, below: Row, name: str, seeds: Sequence[int]) -> float:
    """A number summed over seeds, over the other's."""
    top = sum(above.records[seed][name] for seed in seeds)
    return top / sum(below.records[seed][name] for seed in seeds)


class RatioEstimate(NamedTuple):
    """A geometric mean of ratios, its 95 % interval, and how fine it is.

    ``could_show``: the least factor between the true ratio and some other one for which the
    interval would leave that one out, with a probability of 80 %.
    """

    value: float
    low: float
    high: float
    could_show: float


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> RatioEstimate:
    """Of ratios, one a seed (Student's, of their logarithms)."""
    from scipy.stats import t

    logs = np.log(np.divide(above, below))
    value, freedom = math.exp(logs.mean()), len(logs) - 1
    if not freedom:
        return RatioEstimate(value, 0.0, math.inf, math.inf)
    error = logs.std(ddof=1) / math.sqrt(len(logs))
    quantile = t.ppf((1 + COVERAGE) / 2, freedom)
    width = math.exp(quantile * error)
    could_show = math.exp((quantile + t.ppf(POWER, freedom)) * error)
    return RatioEstimate(value, value / width, value * width, could_show)


def _counts(records: list[Record]) -> tuple[np.ndarray, np.ndarray]:
    """Errors (R, S) and words (S,); the records are of one test set."""
    names = list(records[0]["speakers"])
    errors = np.array([[record["speakers"][name][0] for name in names] for record in records])
    return errors, np.array([records[0]["speakers"][name][1] for name in names])
