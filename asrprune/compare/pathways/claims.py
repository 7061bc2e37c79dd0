"""Judges claims on models of several languages by a comparison's records."""

from asrprune.compare.pathways.options import BETTER, COST, NO_WORSE, ClaimOptions
from asrprune.compare.pathways.summary import Summary
from asrprune.compare.verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    Compared,
    Verdict,
    at_least_as_good,
    better_than_each,
    compare,
    concluded,
    no_worse_than_each,
    show,
)


def judge(claim: ClaimOptions, summary: Summary, margin: float) -> Verdict:
    """Judge a claim.

    Args:
        claim: the claim.
        summary: the rows of the comparison.
        margin: a share of a rival's error rate. Smaller differences do not count.
    """
    if claim.kind == COST:
        return _cost(claim, summary)
    compared = _compared(claim, summary, margin)
    if not compared:
        return Verdict(INCONCLUSIVE, "not run")
    if claim.kind == BETTER:
        return better_than_each(compared)
    if claim.kind == NO_WORSE:
        return no_worse_than_each(compared)
    return _worse_somewhere(compared)


def _compared(claim: ClaimOptions, summary: Summary, margin: float) -> list[Compared] | None:
    """Return the difference to each rival in each language.

    The result is None if a training has not been run.
    """
    pairs = []
    for language in claim.at:
        row = summary.rows.get((claim.method, language))
        for name in claim.than:
            rival = summary.rows.get((name, language))
            if row is None or rival is None:
                return None
            where = name if len(claim.at) == 1 else f"{name} in {language}"
            pairs.append((where, row, rival))
    found = [compare(name, row, rival, len(pairs), margin) for name, row, rival in pairs]
    return None if any(one is None for one in found) else found


def _worse_somewhere(compared: list[Compared]) -> Verdict:
    """Judge whether a method is worse than its rival in at least one language.

    The claim holds if one corrected interval is above zero. Intervals are corrected because any of
    the languages may show the claim. The claim is contradicted if the method is as good as its
    rival in each language (`at_least_as_good`).
    """
    verdict = INCONCLUSIVE
    if any(one.corrected.low > 0 for one in compared):
        verdict = HOLDS
    elif all(at_least_as_good(one) == HOLDS for one in compared):
        verdict = CONTRADICTED
    text = "; ".join(f"{show(one.corrected)} against {one.against}" for one in compared)
    return concluded(verdict, f"{text} (corrected intervals)", compared)


def _cost(claim: ClaimOptions, summary: Summary) -> Verdict:
    """Judge a claim by the hours of speech of the trainings. The grid fixes them: no interval."""
    ours = summary.hours(claim.method)
    parts, verdict = [], HOLDS
    for name in claim.than:
        theirs = summary.hours(name)
        seeds = sorted(ours.keys() & theirs.keys())
        if not seeds:
            return Verdict(INCONCLUSIVE, "not run")
        ratio = sum(ours[seed] for seed in seeds) / sum(theirs[seed] for seed in seeds)
        parts.append(f"{ratio:.2f}x of {name}")
        if ratio > claim.by:
            verdict = CONTRADICTED
    return Verdict(verdict, "; ".join(parts))
