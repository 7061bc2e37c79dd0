"""Verdicts on claims: a claim holds, is contradicted, or the result is inconclusive."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.compare.rows import Row, difference
from asrprune.scoring.clusters import COVERAGE, Estimate

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
LEAST_SEEDS = 3  # with fewer seeds, every verdict is "inconclusive"
# sentences of all reports
INTERVALS = (
    "Intervals have a coverage of 95 %. Speakers and seeds are resampled, with the same draws for "
    "both sides of a difference. Intervals are widened where the spread comes from few seeds "
    "(Student's t)"
)
LEGEND = (
    "A claim on several differences holds if the 95 % interval of each difference shows it. The "
    "claim is contradicted if one of its k differences shows the contrary by an interval with a "
    "coverage of 1 − 5 %/k (Bonferroni). Where a difference up to a margin does not count, the "
    "rival's error rate is raised by the margin, a share of it, before the two are compared. No "
    "verdict rests on a single speaker, or on differences without any spread. *Detectable*: the "
    "smallest true difference that would be found 4 times out of 5; for a ratio, the smallest "
    "factor between the true ratio and the claimed ratio."
)


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim, and the measurements that it rests on."""

    verdict: str
    found: str  # what was measured
    could_show: str = "–"  # the smallest difference or factor that could be detected


@dataclass(frozen=True)
class Compared:
    """A difference of error rates to a rival.

    Attributes:
        against: the name of the rival.
        estimate: the difference with its 95 % interval.
        corrected: the same difference with a wider interval (Bonferroni). The chance is at most
            1 in 20 that any corrected interval of a claim misses its true difference.
        beyond: the difference from the rival's error rate and the margin, with its 95 % interval.
        beyond_corrected: the same with a wider interval.
        tolerated: the margin, as a difference of error rates.
        seeds: the number of common seeds.
        speakers: the number of speakers of the test set.
    """

    against: str
    estimate: Estimate
    corrected: Estimate
    beyond: Estimate
    beyond_corrected: Estimate
    tolerated: float
    seeds: int
    speakers: int


def compare(
    against: str, row: Row, other: Row | None, differences: int, margin: float = 0.0
) -> Compared | None:
    """Compare a row with a rival's row; None if they have no common seeds.

    Args:
        against: the name of the rival.
        row: the row.
        other: the rival's row.
        differences: the number of differences by which the claim is judged.
        margin: a share of the rival's error rate. Smaller differences do not count.
    """
    found = difference(row, other)
    if found is None:
        return None
    estimate, seeds = found
    wider = 1 - (1 - COVERAGE) / differences
    corrected, _ = difference(row, other, wider)
    beyond, _ = difference(row, other, margin=margin)
    beyond_corrected, _ = difference(row, other, wider, margin)
    speakers = len(next(iter(row.records.values()))["speakers"])
    tolerated = estimate.value - beyond.value
    return Compared(
        against, estimate, corrected, beyond, beyond_corrected, tolerated, seeds, speakers
    )


def at_least_as_good(compared: Compared) -> str:
    """Judge whether an error rate is at most the margin above the rival's.

    The rival's error rate varies with seeds and speakers, and the margin, a share of it, does too.
    So the difference from the rival's error rate and the margin is judged. The claim holds if its
    whole interval is at most 0. It is contradicted if its whole corrected interval is above 0.
    """
    if compared.beyond.high <= 0:
        return HOLDS
    return CONTRADICTED if compared.beyond_corrected.low > 0 else INCONCLUSIVE


def better_than_each(compared: Sequence[Compared]) -> Verdict:
    """Judge whether a method is better than each rival.

    The claim holds if all intervals are below zero. It is contradicted if one corrected interval is
    above zero: that rival is better.
    """
    verdict = INCONCLUSIVE
    if all(one.estimate.high < 0 for one in compared):
        verdict = HOLDS
    elif any(one.corrected.low > 0 for one in compared):
        verdict = CONTRADICTED
    text = "; ".join(f"{show(one.estimate)} against {one.against}" for one in compared)
    return concluded(verdict, text, compared)


def no_worse_than_each(compared: Sequence[Compared]) -> Verdict:
    """Judge whether a method is no worse than each rival (`at_least_as_good`).

    The claim holds if it holds for each rival. It is contradicted if it is contradicted for one.
    """
    verdicts = [at_least_as_good(comparison) for comparison in compared]
    verdict = INCONCLUSIVE
    if set(verdicts) == {HOLDS}:
        verdict = HOLDS
    elif CONTRADICTED in verdicts:
        verdict = CONTRADICTED
    text = "; ".join(
        f"{show(comparison.estimate)} against {comparison.against} ({single}: up to "
        f"{points(comparison.tolerated)} does not count)"
        for comparison, single in zip(compared, verdicts, strict=True)
    )
    return concluded(verdict, text, compared)


def concluded(verdict: str, found: str, compared: Sequence[Compared]) -> Verdict:
    """Return a verdict on differences.

    The verdict is inconclusive if there are too few seeds, a single speaker, or differences without
    any spread. The detectable difference is that of the least precise comparison.

    Args:
        verdict: the verdict if there is enough to judge by.
        found: what was measured.
        compared: the comparisons that the verdict rests on.
    """
    seeds = min(one.seeds for one in compared)
    could_show = points(max(one.estimate.could_show for one in compared))
    if seeds < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{found} ({count_seeds(seeds)} only)", could_show)
    if min(one.speakers for one in compared) < 2:
        return Verdict(INCONCLUSIVE, f"{found} (1 speaker only)", could_show)
    if not all(one.estimate.error for one in compared):
        return Verdict(INCONCLUSIVE, f"{found} (no spread over speakers and seeds)", could_show)
    return Verdict(verdict, found, could_show)


def count_seeds(seeds: int) -> str:
    """Return a number of seeds as text, such as ``3 seeds``."""
    return f"{seeds} seed{'s' if seeds > 1 else ''}"


def show(estimate: Estimate) -> str:
    """Return a difference of error rates and its interval as text, in percentage points."""
    value, low, high = (f"{100 * part:+.2f}" for part in estimate[:3])
    return f"{value} [{low}, {high}]"


def points(rate: float) -> str:
    """Return a difference of error rates as text, in percentage points."""
    return f"{100 * rate:.2f}"
