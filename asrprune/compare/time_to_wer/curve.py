"""Compares the costs of two methods at equal error rates, from a few lengths of training each.

A method has a curve of several lengths of training. Each length is trained with its whole schedule,
and has a cost and an error rate. Error rates are made monotone by isotonic regression of their
logarithms: a longer training is not worse. The logarithm of the cost is then interpolated linearly
over the logarithm of the error rate. Nothing is extrapolated. Intervals come from draws of speakers
and seeds, as in `asrprune.scoring.clusters`. All curves share the same draws.
"""

from dataclasses import dataclass

import numpy as np

from asrprune.compare.rows import RatioEstimate
from asrprune.scoring.clusters import COVERAGE, POWER, RESAMPLES, degrees_of_freedom, draws_of


@dataclass(frozen=True)
class Curve:
    """A method at L lengths of training with R seeds each, tested on S speakers.

    Attributes:
        costs: (L, R) costs, such as CPU seconds; NaN where a cost was not measured.
        errors: (L, R, S) word errors by speaker.
    """

    costs: np.ndarray
    errors: np.ndarray


class Draws:
    """Draws of seeds and speakers, the same for all curves of a comparison."""

    def __init__(self, seeds: int, words: np.ndarray, resamples: int = RESAMPLES):
        """Draw seeds and speakers.

        Args:
            seeds: the number of seeds, the same for all trainings.
            words: (S,) reference words by speaker.
            resamples: the number of draws. Draws of speakers without words are left out.
        """
        words = np.asarray(words, np.float64)
        count = len(words)
        by_seed, by_speaker = draws_of(seeds, count, resamples)
        drawn = by_speaker @ words > 0
        self.words = words
        # the first draw is what was measured: each seed and each speaker once
        self.seeds = np.vstack([np.ones((1, seeds)), by_seed[drawn]])
        self.speakers = np.vstack([np.ones((1, count)), by_speaker[drawn]])

    def points(self, curve: Curve, fixed_speakers: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the costs and the error rates (draws, L) of a curve.

        Args:
            curve: a curve with the seeds and speakers of these draws.
            fixed_speakers: whether only seeds are drawn, and each speaker counts once.
        """
        errors = np.asarray(curve.errors, np.float64)
        seeds = errors.shape[1]
        if seeds > 1:  # draws of few seeds spread too little: widen the deviations (Rao, Wu)
            mean = errors.mean(1, keepdims=True)
            errors = mean + np.sqrt(seeds / (seeds - 1)) * (errors - mean)
        known = ~np.isnan(curve.costs)
        fallback = np.nanmean(curve.costs, 1)
        widened = _widened(curve.costs, known, fallback[:, None])
        weights = self.seeds @ known.T
        costs = self.seeds @ np.where(known, widened, 0).T
        costs = np.where(weights > 0, costs / np.maximum(weights, 1), fallback)
        rates = np.empty((len(self.seeds), len(errors)))
        for length, of_length in enumerate(errors):
            drawn = self.seeds @ of_length  # (draws, S)
            if fixed_speakers:
                rates[:, length] = drawn.sum(1) / (seeds * self.words.sum())
            else:
                above = (drawn * self.speakers).sum(1)
                rates[:, length] = above / (seeds * (self.speakers @ self.words))
        return costs, rates


def cost_ratios(full: Curve, other: Curve, draws: Draws) -> list[RatioEstimate]:
    """Return the cost of ``full`` over the cost of ``other`` at the error rate of each length.

    Args:
        full: the curve whose lengths give the error rates.
        other: a curve with the same seeds and speakers, and any lengths.
        draws: draws of these seeds and speakers.

    Returns:
        A ratio for each length of ``full``. The ratio is 0 where the error rate is below all error
        rates of ``other``, and infinity where the error rate is above all of them. The interval
        then has one finite end, at most: the longest, or the shortest, training of ``other`` bounds
        the ratio.
    """
    from scipy.stats import norm

    at_least, at_most = _log_ratios(full, other, draws)
    by_seed, _ = _log_ratios(full, other, draws, fixed_speakers=True)
    seeds, speakers = draws.seeds.shape[1], draws.speakers.shape[1]
    tail = (1 - COVERAGE) / 2
    last = len(at_least) - 2
    found = []
    for length in range(at_least.shape[1]):
        below, above = at_least[:, length], at_most[:, length]
        known = below == above  # neither out of reach, nor better from the start
        # a draw out of reach is a bound from above, one that is better from the start from below
        value = below[0] if known[0] else (-np.inf if np.isneginf(below[0]) else np.inf)
        low = np.sort(below[1:])[int(tail * last)]
        high = np.sort(above[1:])[int(np.ceil((1 - tail) * last))]
        drawn = below[1:][known[1:]]
        stretch = _stretch(by_seed[1:, length], drawn, seeds, speakers)
        if np.isfinite(below[0]):
            low = below[0] + stretch * (low - below[0])
        if np.isfinite(above[0]):
            high = above[0] + stretch * (high - above[0])
        enough = len(drawn) >= COVERAGE * last
        error = stretch * float(drawn.std()) if enough else float("inf")
        shown = np.exp([value, low, high, error * (norm.ppf((1 + COVERAGE) / 2) + norm.ppf(POWER))])
        found.append(RatioEstimate(*shown.tolist()))
    return found


def monotone(rates: np.ndarray) -> np.ndarray:
    """Return the nearest rates (draws, L) that do not rise from one length to the next.

    The distance is the sum of squared differences of logarithms. Source: the min-max formula of
    isotonic regression (Barlow et al. 1972).
    """
    logs = np.log(np.maximum(rates, 1e-12))
    lengths = logs.shape[1]
    sums = np.concatenate([np.zeros((len(logs), 1)), np.cumsum(logs, 1)], 1)
    result = np.full_like(logs, np.inf)
    for begin in range(lengths):
        means = (sums[:, begin + 1 :] - sums[:, begin : begin + 1]) / np.arange(
            1, lengths - begin + 1
        )
        # for each length, the highest mean of the stretches that start at begin and contain it
        highest = np.maximum.accumulate(means[:, ::-1], 1)[:, ::-1]
        result[:, begin:] = np.minimum(result[:, begin:], highest)
    return np.exp(result)


def costs_at(costs: np.ndarray, rates: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the lowest costs (draws, W) at which a monotone curve reaches error rates.

    Args:
        costs: (draws, L) costs, rising.
        rates: (draws, L) error rates, not rising.
        wanted: (draws, W) error rates to reach.

    Returns:
        The costs: 0 where the shortest training is better than wanted, and infinity where the
        longest training is worse than wanted.
    """
    x, y = -np.log(np.maximum(rates, 1e-12)), np.log(costs)
    goal = -np.log(np.maximum(wanted, 1e-12))
    tolerance = 1e-9
    # the first length whose error rate is as low as wanted
    as_good = x[:, None, :] >= goal[:, :, None] - tolerance
    after = as_good.argmax(2)
    reached = as_good.any(2)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(x))[:, None]
    rise = x[rows, after] - x[rows, before]
    part = np.where(rise > 0, (goal - x[rows, before]) / np.where(rise > 0, rise, 1), 1.0)
    log_cost = y[rows, before] + np.clip(part, 0, 1) * (y[rows, after] - y[rows, before])
    found = np.where(reached, np.exp(log_cost), np.inf)
    better = goal < x[:, :1] - tolerance
    return np.where(better, 0.0, found)


def _widened(costs: np.ndarray, known: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return costs (L, R) with wider deviations from their mean over seeds (Rao, Wu)."""
    count = known.sum(1, keepdims=True)
    factor = np.sqrt(count / np.maximum(count - 1, 1)) * (count > 1)
    return np.maximum(mean + factor * (costs - mean), 1e-3 * mean)


def _log_ratios(
    full: Curve, other: Curve, draws: Draws, fixed_speakers: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of the ratios of costs (draws, lengths of ``full``): at least, at most.

    The two differ where ``other`` does not reach the error rate, or is better from the start. Its
    longest, or its shortest, training then bounds the ratio on one side, and nothing on the other.
    """
    costs, rates = draws.points(full, fixed_speakers)
    wanted = monotone(rates)
    least = costs_at(costs, wanted, wanted)  # the shortest of lengths with equal error rates
    own_costs, own_rates = draws.points(other, fixed_speakers)
    reached = costs_at(own_costs, monotone(own_rates), wanted)
    with np.errstate(divide="ignore"):
        logs = np.log(least) - np.log(reached)
        from_longest, from_shortest = (np.log(least) - np.log(own_costs[:, [at]]) for at in (-1, 0))
    at_least = np.where(np.isposinf(logs), from_shortest, logs)
    at_most = np.where(np.isneginf(logs), from_longest, logs)
    return at_least, at_most


def _stretch(by_seed: np.ndarray, drawn: np.ndarray, seeds: int, speakers: int) -> float:
    """Return how many times wider Student's interval is than a normal one (Satterthwaite)."""
    from scipy.stats import norm, t

    if seeds == 1:
        return 1.0
    by_seed, drawn = by_seed[np.isfinite(by_seed)], drawn[np.isfinite(drawn)]
    variance = float(drawn.var()) if len(drawn) else 0.0
    if not variance or not len(by_seed):
        return 1.0
    share = min(1.0, float(by_seed.var()) / variance)
    freedom = degrees_of_freedom(share, seeds, speakers)
    quantile = (1 + COVERAGE) / 2
    return float(t.ppf(quantile, freedom) / norm.ppf(quantile))
