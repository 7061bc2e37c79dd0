"""Estimate confidence intervals of error rates and of their differences with a bootstrap.

The method is that of Bisani and Ney (2004). Utterances are drawn from the test set with
replacement, as many as the set has, and the rate of the draw is computed. This is repeated many
times. The interval contains the middle 95 % of the rates. Utterances of one speaker are not
independent draws. So the interval is too narrow if a set has few speakers with many utterances
each.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95
DRAWS_AT_ONCE = 4_000_000  # drawn utterances in memory, about 100 MB


class Interval(NamedTuple):
    """Hold a measured value and its interval, as rates (not per cent)."""

    value: float
    low: float
    high: float


def wer_interval(errors: Sequence[int], words: Sequence[int]) -> Interval:
    """Return the error rate of a test set and its 95 % interval.

    Every call uses the same random draws.

    Args:
        errors: the errors of each utterance.
        words: the reference words of each utterance.
    """
    columns = np.array([errors, words], dtype=np.int64)
    rates = [_rate(*sums) for sums in _resampled(columns)]
    return _interval(_rate(*columns.sum(axis=1, keepdims=True)), rates)


def paired_difference(
    errors_a: Sequence[int], errors_b: Sequence[int], words: Sequence[int]
) -> Interval:
    """Return the error rate of A minus that of B on the same utterances, and its 95 % interval.

    Each draw takes the same utterances for A and B, so that the difficulty of utterances cancels.
    An interval without zero means that the systems differ on such data.

    Args:
        errors_a: the errors of A in each utterance.
        errors_b: the errors of B in each utterance.
        words: the reference words of each utterance.
    """
    return wer_interval(np.subtract(errors_a, errors_b), words)


def _resampled(columns: np.ndarray) -> Iterator[np.ndarray]:
    """Draw columns of ``columns`` (2, N) with replacement, and yield the sums: (2, n) each."""
    size = columns.shape[1]
    if not size:
        raise ValueError("no utterances to draw from")
    generator = np.random.default_rng(0)
    some = max(1, DRAWS_AT_ONCE // size)
    for start in range(0, RESAMPLES, some):
        drawn = generator.integers(size, size=(min(some, RESAMPLES - start), size))
        yield np.stack([row[drawn].sum(axis=1) for row in columns])


def _rate(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return errors over words. Without words: 0 or infinite, as in `scoring.wer`."""
    empty = np.where(errors == 0, 0.0, np.copysign(np.inf, errors))
    return np.divide(errors, words, out=empty, where=words > 0)


def _interval(value: np.ndarray, resampled: list[np.ndarray]) -> Interval:
    tail = 100 * (1 - COVERAGE) / 2
    # no interpolation, because it gives NaN between finite and infinite rates
    low, high = np.percentile(np.concatenate(resampled), [tail, 100 - tail], method="nearest")
    return Interval(float(value[0]), float(low), float(high))
