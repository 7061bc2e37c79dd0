"""Verdicts on claims: they hold, are contradicted, or nothing can be said."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.scoring.clusters import COVERAGE, Estimate
from asrprune.studies.rows import Row, difference

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
LEAST_SEEDS = 3  # for any verdict but "inconclusive"
# of all reports
INTERVALS = (
    "Intervals are of 95 %, resampled by speaker and by seed, the same for both sides of a "
    "difference, and stretched where few seeds make up the spread (Student)"
)
LEGEND = (
    "A claim on several differences holds if each shows it by its interval of 95 %; it is "
    "contradicted if one of k shows the contrary by its interval of 1 − 5 %/k (Bonferroni). *Could "
    "show*: the least true difference that would be found 4 times out of 5; of a ratio, the least "
    "factor between the true one and the claim's."
)


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: ``found`` says what was measured, ``could_show`` how fine that is."""

    verdict: str
    found: str
    could_show: str = "–"


@dataclass(frozen=True)
class Compared:
    """A difference of error rates over some seeds, and what it was measured against.

    ``corrected`` is the same, its interval so wide that of all differences of one claim, not one
    time in 20 a single interval fails to hold the true one (Bonferroni).
    """

    against: str
    estimate: Estimate
    corrected: Estimate
    seeds: int


def compare(against: str, row: Row, other: Row | None, differences: int) -> Compared | None:
    """A row and another; None where they have no seeds in common.

    Args:
        differences: that one claim is judged by.
    """
    found = difference(row, other)
    if found is None:
        return None
    corrected, _ = difference(row, other, 1 - (1 - COVERAGE) / differences)
    return Compared(against, found[0], corrected, found[1])


def at_least_as_good(compared: Compared, most: float) -> str:
    """Holds if the interval is below a margin; contradicted if above zero, and not below it."""
    if compared.estimate.high <= most:
        return HOLDS
    return CONTRADICTED if compared.corrected.low > 0 else INCONCLUSIVE


def better_than_each(compared: Sequence[Compared]) -> Verdict:
    """Holds if it is better than each, contradicted if one is better than it."""
    verdict = INCONCLUSIVE
    if all(one.estimate.high < 0 for one in compared):
        verdict = HOLDS
    elif any(one.corrected.low > 0 for one in compared):
        verdict = CONTRADICTED
    text = "; ".join(f"{show(one.estimate)} against {one.against}" for one in compared)
    return concluded(verdict, text, compared)


def no_worse_than_each(compared: Sequence[tuple[Compared, float]]) -> Verdict:
    """Holds if it is at least as good everywhere, contradicted if somewhere it is not.

    Args:
        compared: each with the difference that is as good as none.
    """
    found = [at_least_as_good(one, most) for one, most in compared]
    verdict = INCONCLUSIVE
    if all(one == HOLDS for one in found):
        verdict = HOLDS
    elif CONTRADICTED in found:
        verdict = CONTRADICTED
    text = "; ".join(
        f"{show(one.estimate)} against {one.against} ({its}: {100 * most:.2f} is none)"
        for (one, most), its in zip(compared, found, strict=True)
    )
    return concluded(verdict, text, [one for one, _ in compared])


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
