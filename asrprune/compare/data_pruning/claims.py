"""Judges claims on data pruning by a comparison's records."""

from asrprune.compare.data_pruning.options import FASTER, FULL, PARITY, ClaimOptions
from asrprune.compare.data_pruning.summary import KeepRow, Summary
from asrprune.compare.rows import ratio_interval, timed_seeds
from asrprune.compare.verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    LEAST_SEEDS,
    Verdict,
    at_least_as_good,
    better_than_each,
    compare,
    concluded,
    count_seeds,
    points,
    show,
)


def judge(claim: ClaimOptions, summary: Summary, margin: float) -> Verdict:
    """Judge a claim.

    Args:
        claim: the claim.
        summary: the rows of the test set.
        margin: a share of full data's error rate. Smaller differences do not count.
    """
    row = summary.rows.get((claim.method, claim.keep))
    if row is None or summary.full is None:
        return Verdict(INCONCLUSIVE, "not run")
    if claim.kind == FASTER:
        return _faster(claim, summary, row)
    if claim.kind == PARITY:
        return _parity(summary, row, margin)
    return _better(claim, summary, row)


def _parity(summary: Summary, row: KeepRow, margin: float) -> Verdict:
    compared = compare("full data", row, summary.full, 1, margin)
    if compared is None:
        return Verdict(INCONCLUSIVE, "no common seeds")
    tolerated = points(compared.tolerated)
    text = f"{show(compared.estimate)} against full data; up to {tolerated} does not count"
    return concluded(at_least_as_good(compared), text, [compared])


def _better(claim: ClaimOptions, summary: Summary, row: KeepRow) -> Verdict:
    rivals = [
        (name, summary.full if name == FULL else summary.rows.get((name, row.keep)))
        for name in claim.than
    ]
    compared = [
        found
        for name, rival in rivals
        if rival and (found := compare(name, row, rival, len(rivals)))
    ]
    if len(compared) < len(claim.than):
        return Verdict(INCONCLUSIVE, "not run")
    return better_than_each(compared)


def _faster(claim: ClaimOptions, summary: Summary, row: KeepRow) -> Verdict:
    """Judge a claim by the interval of the ratio of times over seeds."""
    seeds = timed_seeds(row, summary.full)
    if not seeds:
        return Verdict(INCONCLUSIVE, "no seed whose trainings have times that can be compared")
    value, low, high, could_show = ratio_interval(
        [summary.full.records[seed]["seconds"] for seed in seeds],
        [row.records[seed]["seconds"] for seed in seeds],
    )
    ceiling = f"with a ceiling of {summary.ceiling(row):.2f}x"
    if len(seeds) < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{value:.2f}x, {ceiling} ({count_seeds(len(seeds))})")
    verdict = INCONCLUSIVE
    if low >= claim.by:
        verdict = HOLDS
    elif high < claim.by:
        verdict = CONTRADICTED
    return Verdict(
        verdict, f"{value:.2f}x [{low:.2f}, {high:.2f}], {ceiling}", f"factor {could_show:.2f}"
    )
