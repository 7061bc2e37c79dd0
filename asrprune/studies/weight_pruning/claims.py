"""Judges claims on sparse models by a comparison's records."""

from collections.abc import Sequence

from asrprune.studies.rows import difference, ratio_interval
from asrprune.studies.study import Record
from asrprune.studies.verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    LEAST_SEEDS,
    Compared,
    Verdict,
    at_least_as_good,
    better_than_each,
    concluded,
    count_seeds,
    show,
)
from asrprune.studies.weight_pruning.costs import costs_of
from asrprune.studies.weight_pruning.grid import NetworksCell
from asrprune.studies.weight_pruning.options import BETTER, COST, DENSE, ClaimOptions
from asrprune.studies.weight_pruning.summary import Summary

NOT_RUN = Verdict(INCONCLUSIVE, "not run")


def judge(
    claim: ClaimOptions,
    summary: Summary,
    cells: Sequence[NetworksCell],
    records: Sequence[Record],
    margin: float,
) -> Verdict:
    """A verdict; ``margin``: the share of a rival's error rate that counts as no difference."""
    if claim.kind == COST:
        return _cost(claim, cells, records)
    compared = _compared(claim, summary)
    if compared is None:
        return NOT_RUN
    if claim.kind == BETTER:
        return better_than_each([one for one, _ in compared])
    return _no_worse(compared, margin)


def _compared(claim: ClaimOptions, summary: Summary) -> list[tuple[Compared, float]] | None:
    """At each sparsity the difference to each rival, and the rival's error rate."""
    found = []
    for sparsity in claim.at:
        row = summary.rows.get((claim.method, sparsity))
        for name in claim.than:
            rival = summary.rows.get((name, sparsity))
            result = difference(row, rival) if row and rival else None
            if result is None:
                return None
            found.append((Compared(f"{name} at {sparsity:g}", *result), rival.rate.value))
    return found


def _no_worse(compared: Sequence[tuple[Compared, float]], margin: float) -> Verdict:
    """Holds if it does so at every level, contradicted if it is at any."""
    levels = [at_least_as_good(one.estimate, margin * rate) for one, rate in compared]
    verdict = INCONCLUSIVE
    if all(level == HOLDS for level in levels):
        verdict = HOLDS
    elif CONTRADICTED in levels:
        verdict = CONTRADICTED
    text = "; ".join(
        f"{show(one.estimate)} against {one.against} ({level}: {100 * margin * rate:.2f} is none)"
        for (one, rate), level in zip(compared, levels, strict=True)
    )
    return concluded(verdict, text, [one for one, _ in compared])


def _cost(claim: ClaimOptions, cells: Sequence[NetworksCell], records: Sequence[Record]) -> Verdict:
    """By the interval over seeds of the ratio to the dense training."""
    ours, dense = (
        {
            seed: value
            for seed, cost in costs_of(method, cells, records).items()
            if (value := getattr(cost, claim.measure)) is not None
        }
        for method in (claim.method, DENSE)
    )
    seeds = sorted(ours.keys() & dense.keys())
    if not seeds:
        return Verdict(INCONCLUSIVE, "nothing that ran through undisturbed")
    value, low, high = ratio_interval(
        [ours[seed] for seed in seeds], [dense[seed] for seed in seeds]
    )
    if len(seeds) < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{value:.3f}x ({count_seeds(len(seeds))})")
    verdict = INCONCLUSIVE
    if high <= claim.by:
        verdict = HOLDS
    elif low > claim.by:
        verdict = CONTRADICTED
    return Verdict(
        verdict,
        f"{value:.3f}x [{low:.3f}, {high:.3f}] of the dense training",
        f"{high - value:.3f}x",
    )
