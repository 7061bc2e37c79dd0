"""How far an error rate, or the difference of two, could lie from what was measured.

Bisani and Ney (2004): utterances are drawn from the test set with replacement, as many as there
are, and the rate is computed anew, many times; the interval holds the middle 95 % of these rates.
Utterances of one speaker are no independent draws, so that the interval is rather too narrow where
few speakers speak much.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95
DRAWS_AT_ONCE = 4_000_000  # about 100 MB


class Interval(NamedTuple):
    """What was measured, and the interval around it; rates, not per cent."""

    value: float
    low: float
    high: float


def wer_interval(errors: Sequence[int], words: Sequence[int]) -> Interval:
    """The error rate of a test set and its 95 % interval.

    ``errors`` and ``words``: errors and reference words of each utterance. The draws are the same
    in each call.
    """
    columns = np.array([errors, words], dtype=np.int64)
    rates = [_rate(*sums) for sums in _resampled(columns)]
    return _interval(_rate(*columns.sum(axis=1, keepdims=True)), rates)


def paired_difference(
    errors_a: Sequence[int], errors_b: Sequence[int], words: Sequence[int]
) -> Interval:
    """The error rate of A minus that of B on the same utterances, and its 95 % interval.

    Both are drawn together, so that what is hard for both cancels. An interval without zero says
    that the systems differ on such data.
    """
    return wer_interval(np.subtract(errors_a, errors_b), words)


def _resampled(columns: np.ndarray) -> Iterator[np.ndarray]:
    """Sums over draws with replacement of columns of ``columns`` (2, N): (2, some) each."""
    size = columns.shape[1]
    if not size:
        raise ValueError("no utterances to draw from")
    generator = np.random.default_rng(0)
    some = max(1, DRAWS_AT_ONCE // size)
    for start in range(0, RESAMPLES, some):
        drawn = generator.integers(size, size=(min(some, RESAMPLES - start), size))
        yield np.stack([row[drawn].sum(axis=1) for row in columns])


def _rate(errors: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Errors over words; without words 0 or infinite, as in `scoring.wer`."""
    empty = np.where(errors == 0, 0.0, np.copysign(np.inf, errors))
    return np.divide(errors, words, out=empty, where=words > 0)


def _interval(value: np.ndarray, resampled: list[np.ndarray]) -> Interval:
    tail = 100 * (1 - COVERAGE) / 2
    # no interpolation: between finite and infinite rates it would give NaN
    low, high = np.percentile(np.concatenate(resampled), [tail, 100 - tail], method="nearest")
    return Interval(float(value[0]), float(low), float(high))
