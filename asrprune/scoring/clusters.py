"""Estimate confidence intervals of error rates over draws of speakers and seeds.

Utterances of one speaker are not independent draws. Two trainings of one method differ by their
seeds. So a draw takes speakers and seeds with replacement, and all utterances of a drawn speaker.
Both sides of a difference have the same draws. This is the bootstrap of Bisani and Ney (2004), with
clusters instead of utterances.

With only three seeds, a bootstrap gives too narrow intervals, for two reasons:

- The spread of R seeds is too small by the factor ``sqrt((R - 1) / R)``. So deviations from the
  mean over seeds are multiplied by the inverse (Rao and Wu 1988).
- The spread is not known, but estimated from few seeds. So the interval is stretched from the
  normal quantile to Student's quantile. The degrees of freedom follow from the shares of seeds and
  speakers in the variance (Satterthwaite 1946).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95
POWER = 0.8


class Estimate(NamedTuple):
    """Hold a measured value, its 95 % interval and its standard error, as rates (not per cent).

    ``could_show`` is the least true difference for which the interval would exclude zero with a
    probability of 80 %.
    """

    value: float
    low: float
    high: float
    error: float
    could_show: float


def difference_of(
    errors_a: np.ndarray, errors_b: np.ndarray, words: np.ndarray, coverage: float = COVERAGE
) -> Estimate:
    """Return the error rate of A minus that of B. Both were trained with the same R seeds.

    Args:
        errors_a: errors of A by seed and speaker (R, S).
        errors_b: errors of B by seed and speaker (R, S).
        words: reference words by speaker (S,); their sum is above 0.
        coverage: probability of the interval.
    """
    differences = np.subtract(errors_a, errors_b, dtype=np.float64)
    return rate_of(differences, words, coverage=coverage)


def rate_of(
    errors: np.ndarray,
    words: np.ndarray,
    resamples: int = RESAMPLES,
    coverage: float = COVERAGE,
) -> Estimate:
    """Return the mean error rate over R seeds.

    Every call uses the same random draws.

    Args:
        errors: errors by seed and speaker (R, S).
        words: reference words by speaker (S,).
        resamples: number of draws.
        coverage: probability of the interval.
    """
    from scipy.stats import norm, t  # imported late, because the import is slow

    errors, words = np.asarray(errors, dtype=np.float64), np.asarray(words, dtype=np.float64)
    value = float(errors.sum() / (len(errors) * words.sum()))
    rates = _resampled(errors, words, resamples)
    tail = 100 * (1 - coverage) / 2
    low, high = np.percentile(rates, [tail, 100 - tail])
    freedom = _degrees_of_freedom(errors, words, float(rates.var()))
    within = (1 + coverage) / 2
    quantile, error = float(t.ppf(within, freedom)), float(rates.std())
    stretch = quantile / float(norm.ppf(within))
    could_show = (quantile + float(t.ppf(POWER, freedom))) * error
    low, high = value + stretch * (low - value), value + stretch * (high - value)
    return Estimate(value, float(low), float(high), error, could_show)


def _resampled(errors: np.ndarray, words: np.ndarray, resamples: int) -> np.ndarray:
    """Return the rates of draws of seeds and speakers. Draws without words are left out."""
    seeds, speakers = errors.shape
    if seeds > 1:
        mean = errors.mean(axis=0)
        errors = mean + np.sqrt(seeds / (seeds - 1)) * (errors - mean)
    times_seed, times_speaker = draws_of(seeds, speakers, resamples)
    drawn_errors = ((times_seed @ errors) * times_speaker).sum(axis=1)
    drawn_words = seeds * (times_speaker @ words)
    return drawn_errors[drawn_words > 0] / drawn_words[drawn_words > 0]


@lru_cache(maxsize=8)
def draws_of(seeds: int, speakers: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how often each seed and each speaker is drawn. Every call returns the same draws.

    Args:
        seeds: number of seeds.
        speakers: number of speakers.
        resamples: number of draws.

    Returns:
        (resamples, seeds) and (resamples, speakers) float64, read-only.
    """
    generator = np.random.default_rng(0)
    times_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    times_speaker = generator.multinomial(speakers, np.full(speakers, 1 / speakers), resamples)
    found = times_seed.astype(np.float64), times_speaker.astype(np.float64)
    for times in found:
        times.setflags(write=False)
    return found


def _degrees_of_freedom(errors: np.ndarray, words: np.ndarray, variance: float) -> float:
    """Return the degrees of freedom of the variance, from the errors by seed and speaker."""
    seeds, speakers = errors.shape
    of_speakers = max(speakers - 1, 1)
    if seeds == 1 or not variance:
        return of_speakers
    by_seed = errors.sum(axis=1) / words.sum()
    share = min(1.0, float(by_seed.var(ddof=1)) / seeds / variance)
    return degrees_of_freedom(share, seeds, speakers)


def degrees_of_freedom(share: float, seeds: int, speakers: int) -> float:
    """Return the degrees of freedom of a spread (Satterthwaite 1946).

    Args:
        share: the share of the seeds in the variance. The rest is the share of the speakers.
        seeds: number of seeds, at least 2.
        speakers: number of speakers.
    """
    return 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / max(speakers - 1, 1))
