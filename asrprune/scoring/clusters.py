"""How far an error rate, or a difference of two, may lie when other speakers and seeds are drawn.

Utterances of one speaker are no independent draws, and two trainings of one method differ by their
seeds: so both speakers and seeds are drawn with replacement, all utterances of a speaker together,
and the same ones for both sides of a difference (as the bootstrap of Bisani and Ney 2004, with
clusters in place of utterances).

Three seeds are few for a bootstrap, which would then be too sure of itself, twice over. Their
spread comes out too small by ``sqrt((R - 1) / R)``, so deviations from the mean over seeds are
widened by its inverse (Rao and Wu 1988). And an interval of known spread is no interval of one that
was estimated from three: it is stretched from the normal to Student's quantile, with the degrees of
freedom that belong to the shares of seeds and speakers in the variance (Satterthwaite 1946).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
COVERAGE = 0.95
POWER = 0.8


class Estimate(NamedTuple):
    """What was measured, its interval (of 95 %) and standard error; rates, not per cent.

    ``could_show``: the least true difference for which that interval would leave out zero, with a
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
    """The error rate of A minus that of B, of R seeds that both were trained with.

    Args:
        errors_a: and ``errors_b`` (R, S): errors by seed and speaker.
        words: (S,) reference words by speaker, of which there are some.
        coverage: of the interval.
    """
    differences = np.subtract(errors_a, errors_b, dtype=np.float64)
    return rate_of(differences, words, coverage=coverage)


def rate_of(
    errors: np.ndarray,
    words: np.ndarray,
    resamples: int = RESAMPLES,
    coverage: float = COVERAGE,
) -> Estimate:
    """The mean error rate over R seeds; errors (R, S) by speaker, words (S,).

    The draws are the same in each call.

    Args:
        coverage: of the interval.
    """
    from scipy.stats import norm, t  # slow to import, and few need it

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
    """The rates of draws of seeds and speakers; of those that have words."""
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
    """Return how often each seed and each speaker is drawn; the same in each call.

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
    """Between seeds - 1 and speakers - 1, by what the variance is made of."""
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
        share: the share of the seeds in the variance; the rest is of the speakers.
        seeds: how many there are, 2 at least.
        speakers: how many there are.
    """
    return 1 / (share**2 / (seeds - 1) + (1 - share) ** 2 / max(speakers - 1, 1))
