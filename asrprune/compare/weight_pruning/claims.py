"""Judges claims on sparse models by a comparison's records."""

from collections.abc import Sequence

from asrprune.compare.rows import ratio_interval
from asrprune.compare.study import Record
from asrprune.compare.verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    LEAST_SEEDS,
    Compared,
    Verdict,
    better_than_each,
    compare,
    count_seeds,
    no_worse_than_each,
)
from asrprune.compare.weight_pruning.costs import costs_of
from asrprune.compare.weight_pruning.grid import NetworksCell
from asrprune.compare.weight_pruning.options import BETTER, COST, DENSE, ClaimOptions
from asrprune.compare.weight_pruning.summary import Summary


def judge(
    claim: ClaimOptions,
    summary: Summary,
    cells: Sequence[NetworksCell],
    records: Sequence[Record],
    margin: float,
) -> Verdict:
    """Judge a claim.

    Args:
        claim: the claim.
        summary: the rows of the test set.
        cells: all cells of the grid.
        records: the records of the test set.
        margin: a share of a rival's error rate. Smaller differences do not count.
    """
    if claim.kind == COST:
        return _cost(claim, cells, records)
    compared = _compared(claim, summary, margin)
    if compared is None:
        return Verdict(INCONCLUSIVE, "not run")
    if not compared:
        return Verdict(INCONCLUSIVE, "nothing to compare: all are the same networks")
    if claim.kind == BETTER:
        return better_than_each(compared)
    return no_worse_than_each(compared)


def _compared(claim: ClaimOptions, summary: Summary, margin: float) -> list[Compared] | None:
    """Return the difference to each rival at each sparsity.

    Pairs of the same networks are left out: at sparsity 0, *small* and *gradual* are the
    dense model. The result
    is None if a network has not been run.
    """
    pairs = []
    for sparsity in claim.at:
        row = summary.rows.get((claim.method, sparsity))
        for name in claim.than:
            rival = summary.rows.get((name, sparsity))
            if row is None or rival is None:
                return None
            if rival is not row:
                pairs.append((f"{name} at {sparsity:g}", row, rival))
    found = [compare(name, row, rival, len(pairs), margin) for name, row, rival in pairs]
    return None if any(one is None for one in found) else found


def _cost(claim: ClaimOptions, cells: Sequence[NetworksCell], records: Sequence[Record]) -> Verdict:
    """Judge a claim by the interval of the cost over the dense training's cost, over seeds."""
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
        return Verdict(INCONCLUSIVE, "no seed with known costs of both")
    value, low, high, could_show = ratio_interval(
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
        f"factor {could_show:.3f}",
    )
