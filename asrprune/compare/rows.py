"""Rows of a comparison's tables: the records of several seeds, and differences of two rows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrprune.compare.pace import timed
from asrprune.compare.study import Record
from asrprune.scoring.clusters import COVERAGE, POWER, Estimate, difference_of, rate_of


@dataclass
class Row:
    """The records of trainings that differ in their seeds only, on one test set."""

    records: dict[int, Record]  # by seed

    def mean(self, name: str) -> float | None:
        """Return the mean of a value over the seeds whose records have it."""
        return mean(record.get(name) for record in self.records.values())

    def time(self, name: str = "seconds") -> float | None:
        """Return the mean of a time over the trainings whose times can be compared."""
        return mean(record.get(name) for record in self.records.values() if timed(record))

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
        """The word error rate."""
        return rate_of(*_counts([self.records[seed] for seed in sorted(self.records)]))


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def common_seeds(row: Row, other: Row | None) -> list[int]:
    """Return the seeds that both rows have, ascending."""
    return sorted(set(row.records) & set(other.records)) if other else []


def difference(
    row: Row, other: Row | None, coverage: float = COVERAGE, margin: float = 0.0
) -> tuple[Estimate, int] | None:
    """Return the row's error rate minus the other row's, over their common seeds.

    Args:
        row: the row.
        other: the other row.
        coverage: the coverage of the interval, such as 0.95.
        margin: the other row's error rate is raised by this share of it.

    Returns:
        The difference and the number of common seeds. None if the rows have no common seeds, or if
        they are the same row.
    """
    seeds = common_seeds(row, other)
    if other is row or not seeds:
        return None
    errors, words = _counts([row.records[seed] for seed in seeds])
    others, _ = _counts([other.records[seed] for seed in seeds])
    return difference_of(errors, (1 + margin) * others, words, coverage), len(seeds)


def timed_seeds(row: Row, other: Row | None) -> list[int]:
    """Return the common seeds for which the times of both trainings can be compared."""
    return [
        seed
        for seed in common_seeds(row, other)
        if timed(row.records[seed]) and timed(other.records[seed])
    ]


def ratio(above: Row, below: Row, name: str, seeds: Sequence[int]) -> float:
    """Return the sum of a value over the seeds in one row, divided by the sum in the other."""
    top = sum(above.records[seed][name] for seed in seeds)
    return top / sum(below.records[seed][name] for seed in seeds)


class RatioEstimate(NamedTuple):
    """A geometric mean of ratios, its 95 % interval, and the factor that it can detect.

    ``could_show``: the smallest detectable factor. If the true ratio differs from another ratio by
    this factor, the interval excludes the other ratio with a probability of 80 %.
    """

    value: float
    low: float
    high: float
    could_show: float


def ratio_interval(above: Sequence[float], below: Sequence[float]) -> RatioEstimate:
    """Return the mean of the ratios ``above / below``, with Student's interval of the logarithms.

    Args:
        above: numerators, one for each seed.
        below: denominators, one for each seed.
    """
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
    """Return errors (R, S) and words (S,) of R records of one test set with S speakers."""
    names = list(records[0]["speakers"])
    errors = np.array([[record["speakers"][name][0] for name in names] for record in records])
    return errors, np.array([records[0]["speakers"][name][1] for name in names])
