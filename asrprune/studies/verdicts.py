"""Verdicts on claims: they hold, are contradicted, or nothing can be said."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.scoring.clusters import Estimate

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
LEAST_SEEDS = 3  # for any verdict but "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: ``found`` says what was measured, ``could_show`` how fine that is."""

    verdict: str
    found: str
    could_show: str = "–"


@dataclass(frozen=True)
class Compared:
    """A difference of error rates over some seeds, and what it was measured against."""

    against: str
    estimate: Estimate
    seeds: int


def at_least_as_good(estimate: Estimate, most: float) -> str:
    """Holds if the interval is below a margin; contradicted if above zero, and not below it."""
    if estimate.high <= most:
        return HOLDS
    return CONTRADICTED if estimate.low > 0 else INCONCLUSIVE


def better_than_each(compared: Sequence[Compared]) -> Verdict:
    """Holds if it is better than each, contradicted if one is better than it."""
    verdict = INCONCLUSIVE
    if all(one.estimate.high < 0 for one in compared):
        verdict = HOLDS
    elif any(one.estimate.low > 0 for one in compared):
        verdict = CONTRADICTED
    text = "; ".join(f"{show(one.estimate)} against {one.against}" for one in compared)
    return concluded(verdict, text, compared)


def concluded(verdict: str, found: str, compared: Sequence[Compared]) -> Verdict:
    """A verdict on differences, if there are seeds enough, and what their widest could show."""
    seeds = min(one.seeds for one in compared)
    could_show = points(max(one.estimate.could_show for one in compared))
    if seeds < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{found} ({count_seeds(seeds)} only)", could_show)
    return Verdict(verdict, found, could_show)


def count_seeds(seeds: int) -> str:
    """``3 seeds``."""
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def show(estimate: Estimate) -> str:
    """A difference of error rates and its interval, in points of per cent."""
    value, low, high = (f"{100 * part:+.2f}" for part in estimate[:3])
    return f"{value} [{low}, {high}]"


def points(rate: float) -> str:
    """A rate in points of per cent."""
    return f"{100 * rate:.2f}"
