"""Chooses among the sub-networks of lowest loss by their word error rates on the development set.

The loss orders sub-networks of one size well, but not exactly as their error rates do. Decoding
takes time, so only a few sub-networks are decoded, while a search evaluates hundreds by their loss.
"""

import math
from collections.abc import Sequence
from typing import Any

from asrprune.base.markdown import NOTHING, table
from asrprune.export.budget import MILLISECONDS, Amount
from asrprune.search.pareto import Rates, key_of
from asrprune.weight_pruning.search.searching import Evaluated, SearchResult


def candidates_of(result: SearchResult, count: int) -> list[list[Evaluated]]:
    """Return the sub-networks of lowest loss within each budget, the best first.

    Args:
        result: the result of a search.
        count: the highest number of sub-networks for each budget. 0: the best one alone.
    """
    found = []
    for budget in (one.budget for one in result.found):
        within = [
            one
            for one in result.evaluated
            if math.isfinite(one.fitness) and one.cost <= (1 + 1e-9) * budget
        ]
        found.append(sorted(within, key=lambda one: (one.fitness, one.cost))[: max(count, 1)])
    return found


def reranked(
    result: SearchResult, candidates: Sequence[Sequence[Evaluated]], rates: Rates
) -> list[list[Evaluated]]:
    """Return the candidates of each budget by error rate, the lowest first.

    Among equal error rates, the lowest loss is first. The sub-network that a smaller budget chooses
    is a candidate of each larger budget too. So a larger budget never has a higher error rate.

    Args:
        result: the result of a search.
        candidates: the candidates of each budget.
        rates: the error rates of all candidates.
    """
    found = [list(some) for some in candidates]
    smaller: list[Evaluated] = []
    for place in sorted(range(len(found)), key=lambda place: result.found[place].budget):
        pool = {key_of(one): one for one in [*found[place], *smaller]}
        found[place] = sorted(
            pool.values(), key=lambda one: (rates[key_of(one)], one.fitness, one.cost)
        )
        smaller.append(found[place][0])
    return found


def markdown(record: dict[str, Any]) -> str:
    """Return a table of the candidates of each budget; the first row of a budget is the chosen one.

    Args:
        record: the content of a ``pareto.json``.
    """
    unit, rows = record["unit"], []
    for one in record["budgets"]:
        for place, network in enumerate(one["candidates"]):
            rows.append(
                [
                    "" if place else one["budget"],
                    str(Amount(network[unit], unit)),
                    f"{network['sparsity']:.3f}",
                    f"{network['fitness']:.4f}",
                    NOTHING if network.get("wer") is None else f"{100 * network['wer']:.2f}",
                ]
            )
    how = (
        f"For each budget the {record['rerank']} sub-networks of lowest loss, and the choices of "
        "smaller budgets, were decoded by greedy search. They are sorted by WER."
        if record["rerank"]
        else "For each budget, the sub-network of lowest loss."
    )
    columns = ("budget", "cost", "sparsity", "loss", "WER, %")
    measured = ""
    if times := record.get("times"):
        shown = ", ".join(
            f"{best[MILLISECONDS]:.3f} estimated and {best['measured_milliseconds']:.3f} measured "
            f"({one['budget']})"
            for one in record["budgets"]
            for best in [one["best"]]
        )
        measured = (
            f"\nMilliseconds of the int8 encoder for {times['for']}, on one thread of this "
            f"machine: {shown}; dense {times['dense']:.3f} measured.\n"
        )
    return (
        f"{how} `asrprune extract --search` takes a budget's first sub-network. Development set: "
        f"{record['dev_set']}, {record['dev_seconds']:.0f} s; {record['evaluations']} sub-networks "
        f"were evaluated.\n\n{table(columns, rows)}\n{measured}"
    )
