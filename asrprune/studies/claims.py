"""Judges claims by a comparison's records: they hold, are contradicted, or nothing can be said."""

import math
from dataclasses import dataclass

import numpy as np

from asrprune.scoring.clusters import COVERAGE, Estimate
from asrprune.studies.options import FASTER, PARITY, ClaimOptions
from asrprune.studies.summary import Row, Summary

HOLDS, CONTRADICTED, INCONCLUSIVE = "holds", "contradicted", "inconclusive"
LEAST_SEEDS = 3  # for any verdict but "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """What became of a claim: ``found`` says what was measured, ``could_show`` how fine that is."""

    verdict: str
    found: str
    could_show: str = "–"


def judge(claim: ClaimOptions, summary: Summary, margin: float) -> Verdict:
    """A verdict; ``margin``: the share of full data's error rate that counts as no difference."""
    row = summary.rows.get((claim.method, claim.keep))
    if row is None or summary.full is None:
        return Verdict(INCONCLUSIVE, "not run")
    if claim.kind == FASTER:
        return _faster(claim, summary, row)
    if claim.kind == PARITY:
        return _parity(summary, row, margin)
    return _better(claim, summary, row)


def _parity(summary: Summary, row: Row, margin: float) -> Verdict:
    """Holds if the interval is below the margin; contradicted if above zero, and not below it."""
    estimate, seeds = summary.difference(row, summary.full) or (None, 0)
    if estimate is None:
        return Verdict(INCONCLUSIVE, "no common seeds")
    most = margin * summary.full.rate.value
    found = f"{show(estimate)} against full data, {100 * most:.2f} being as good as none"
    if seeds < LEAST_SEEDS:
        return _too_few(seeds, found, estimate)
    verdict = INCONCLUSIVE
    if estimate.high <= most:
        verdict = HOLDS
    elif estimate.low > 0:
        verdict = CONTRADICTED
    return Verdict(verdict, found, _points(estimate.could_show))


def _better(claim: ClaimOptions, summary: Summary, row: Row) -> Verdict:
    """Holds if it is better than each, contradicted if one is better than it."""
    rivals = [(name, summary.rows.get((name, row.keep))) for name in claim.than]
    compared = [(name, summary.difference(row, rival)) for name, rival in rivals if rival]
    found = [(name, *result) for name, result in compared if result]
    if len(found) < len(claim.than):
        return Verdict(INCONCLUSIVE, "not run")
    text = "; ".join(f"{show(estimate)} against {name}" for name, estimate, _ in found)
    widest = max((estimate for _, estimate, _ in found), key=lambda e: e.could_show)
    seeds = min(count for *_, count in found)
    if seeds < LEAST_SEEDS:
        return _too_few(seeds, text, widest)
    verdict = INCONCLUSIVE
    if all(estimate.high < 0 for _, estimate, _ in found):
        verdict = HOLDS
    elif any(estimate.low > 0 for _, estimate, _ in found):
        verdict = CONTRADICTED
    return Verdict(verdict, text, _points(widest.could_show))


def _faster(claim: ClaimOptions, summary: Summary, row: Row) -> Verdict:
    """By the interval of the ratio of times over seeds (Student's, of its logarithm)."""
    from scipy.stats import t

    seeds = summary.timed(row)
    if not seeds:
        return Verdict(INCONCLUSIVE, "no training of it, or of full data, ran through undisturbed")
    logs = np.log(
        [summary.full.records[seed]["seconds"] / row.records[seed]["seconds"] for seed in seeds]
    )
    value = math.exp(logs.mean())
    found = f"{value:.2f}x, with a ceiling of {summary.ceiling(row):.2f}x"
    if len(seeds) < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{found} ({len(seeds)} seeds)")
    width = t.ppf((1 + COVERAGE) / 2, len(seeds) - 1) * logs.std(ddof=1) / math.sqrt(len(seeds))
    low, high = value * math.exp(-width), value * math.exp(width)
    found = f"{value:.2f}x [{low:.2f}, {high:.2f}], with a ceiling of {summary.ceiling(row):.2f}x"
    verdict = INCONCLUSIVE
    if low >= claim.by:
        verdict = HOLDS
    elif high < claim.by:
        verdict = CONTRADICTED
    return Verdict(verdict, found, f"{high - value:.2f}x")


def show(estimate: Estimate) -> str:
    """A difference of error rates and its interval, in points of per cent."""
    value, low, high = (f"{100 * part:+.2f}" for part in estimate[:3])
    return f"{value} [{low}, {high}]"


def _points(rate: float) -> str:
    return f"{100 * rate:.2f}"


def _too_few(seeds: int, found: str, estimate: Estimate) -> Verdict:
    text = f"{found} ({seeds} seed{'s' if seeds > 1 else ''} only)"
    return Verdict(INCONCLUSIVE, text, _points(estimate.could_show))
