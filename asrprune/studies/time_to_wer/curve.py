"""At which cost two ways to train reach the same error rate, from a few lengths of training each.

A way to train has a curve: several lengths of training, each with its whole schedule, with a cost
and an error rate each. Error rates are made monotone (the longer training is not worse: isotonic
regression of their logarithms) and interpolated, the logarithm of the cost against that of the
error rate. Nothing is extrapolated. Intervals come from draws of speakers and seeds, as in
`asrprune.scoring.clusters`, the same draws for all curves.
"""

from dataclasses import dataclass

import numpy as np

from asrprune.scoring.clusters import COVERAGE, POWER, RESAMPLES, degrees_of_freedom, draws_of
from asrprune.studies.rows import RatioEstimate


@dataclass(frozen=True)
class Curve:
    """One way to train, at L lengths with R seeds each, tested on S speakers.

    Attributes:
        costs: (L, R), such as CPU seconds; NaN where a cost was not measured.
        errors: (L, R, S) by speaker.
    """

    costs: np.ndarray
    errors: np.ndarray


class Draws:
    """Draws of seeds and speakers, the same for all curves of a comparison."""

    def __init__(self, seeds: int, words: np.ndarray, resamples: int = RESAMPLES):
        """Draw.

        Args:
            seeds: how many all trainings have.
            words: (S,) reference words by speaker.
            resamples: how many draws.
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
            curve: of the seeds and speakers of these draws.
            fixed_speakers: draw seeds only.
        """
        errors = np.asarray(curve.errors, np.float64)
        seeds = errors.shape[1]
        if seeds > 1:  # deviations as wide as those of a sample, not of a population (Rao, Wu)
            mean = errors.mean(1, keepdims=True)
            errors = mean + np.sqrt(seeds / (seeds - 1)) * (errors - mean)
        known = ~np.isnan(curve.costs)
        fallback = np.nanmean(curve.costs, 1)
        weights = self.seeds @ known.T
        costs = self.seeds @ np.where(known, curve.costs, 0).T
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
    """Return the cost of ``full`` over that of ``other`` at the error rate of each length of full.

    Args:
        full: what is compared with.
        other: of the same seeds and speakers; any lengths.
        draws: of these seeds and speakers.

    Returns:
        A ratio for each length of full. It is 0 where the error rate is below all of ``other``, and
        infinity where it is above all.
    """
    from scipy.stats import norm

    logs = _log_ratios(full, other, draws)
    by_seed = _log_ratios(full, other, draws, fixed_speakers=True)
    seeds, speakers = draws.seeds.shape[1], draws.speakers.shape[1]
    found = []
    for length in range(logs.shape[1]):
        value, drawn = logs[0, length], np.sort(logs[1:, length])
        tail = (1 - COVERAGE) / 2
        last = len(drawn) - 1
        low, high = drawn[int(tail * last)], drawn[int(np.ceil((1 - tail) * last))]
        stretch = _stretch(by_seed[1:, length], drawn, seeds, speakers)
        if np.isfinite(value):
            low, high = value + stretch * (low - value), value + stretch * (high - value)
        finite = drawn[np.isfinite(drawn)]
        error = stretch * float(finite.std()) if len(finite) else float("inf")
        shown = np.exp([value, low, high, error * (norm.ppf((1 + COVERAGE) / 2) + norm.ppf(POWER))])
        found.append(RatioEstimate(*shown.tolist()))
    return found


def monotone(rates: np.ndarray) -> np.ndarray:
    """Return the nearest rates (draws, L) that do not rise from one length to the next.

    Nearest by the squares of differences of logarithms. Source: the min-max formula of isotonic
    regression (Barlow et al. 1972).
    """
    logs = np.log(np.maximum(rates, 1e-12))
    lengths = logs.shape[1]
    sums = np.concatenate([np.zeros((len(logs), 1)), np.cumsum(logs, 1)], 1)
    result = np.full_like(logs, np.inf)
    for begin in range(lengths):
        means = (sums[:, begin + 1 :] - sums[:, begin : begin + 1]) / np.arange(
            1, lengths - begin + 1
        )
        # of all stretches from here on, the highest that reaches so far
        highest = np.maximum.accumulate(means[:, ::-1], 1)[:, ::-1]
        result[:, begin:] = np.minimum(result[:, begin:], highest)
    return np.exp(result)


def costs_at(costs: np.ndarray, rates: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the least costs (draws, W) at which a monotone curve reaches error rates.

    Args:
        costs: (draws, L), rising.
        rates: (draws, L), not rising.
        wanted: (draws, W) error rates.

    Returns:
        0 where the shortest training is better than wanted, and infinity where the longest is not
        as good.
    """
    x, y = -np.log(np.maximum(rates, 1e-12)), np.log(costs)
    goal = -np.log(np.maximum(wanted, 1e-12))
    tolerance = 1e-9
    # the first length that is as good
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


def _log_ratios(
    full: Curve, other: Curve, draws: Draws, fixed_speakers: bool = False
) -> np.ndarray:
    """Return (draws, lengths of full) logarithms of the ratio of costs."""
    costs, rates = draws.points(full, fixed_speakers)
    wanted = monotone(rates)
    least = costs_at(costs, wanted, wanted)  # of lengths that are alike, the shortest
    own_costs, own_rates = draws.points(other, fixed_speakers)
    reached = costs_at(own_costs, monotone(own_rates), wanted)
    with np.errstate(divide="ignore"):
        return np.log(least) - np.log(reached)


def _stretch(by_seed: np.ndarray, drawn: np.ndarray, seeds: int, speakers: int) -> float:
    """Return how much wider Student's interval is than the normal one (Satterthwaite)."""
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
