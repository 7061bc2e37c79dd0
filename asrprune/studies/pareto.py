"""What a search for sub-networks leaves: the best of each size, beside uniform ones; a plot."""

import math
from pathlib import Path
from typing import Any

from asrprune.files import atomic_path
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.search import Evaluated, SearchResult


def record_of(result: SearchResult, budgets: list[str], bank: MaskBank) -> dict[str, Any]:
    """A search as plain values: ``budgets``, the ``uniform`` sub-networks, ``evaluations``.

    :param budgets: as they were asked for, in the order of the result's.
    """
    return {
        "budgets": [
            {
                "budget": text,
                "bytes": found.budget,
                "best": _described(found.best, bank),
                "uniform": found.uniform and _described(found.uniform, bank, choice=False),
                "history": [list(step) for step in found.history],
            }
            for text, found in zip(budgets, result.found, strict=True)
        ],
        "uniform": [
            _described(one, bank, choice=False)
            for one in sorted(result.evaluated, key=lambda one: -one.cost)
            if len(set(one.choice.values())) == 1
        ],
        "evaluations": len(result.evaluated),
        "seconds": round(result.seconds, 3),
    }


def spread(evaluated: list[Evaluated], count: int) -> list[Evaluated]:
    """At most so many, evenly over the ranks of fitness, the best and the worst among them."""
    ranked = sorted(
        (one for one in evaluated if math.isfinite(one.fitness)),
        key=lambda one: (one.fitness, one.cost),
    )
    last = len(ranked) - 1
    places = {round(last * place / max(count - 1, 1)) for place in range(count)}
    return [ranked[place] for place in sorted(places)]


def draw(record: dict[str, Any], path: Path) -> None:
    """Fitness against size; equal records give equal files."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    winners = sorted((one["best"] for one in record["budgets"]), key=lambda one: one["bytes"])
    for label, style, networks in (
        ("one sparsity for all layers", "o-", record["uniform"]),
        (f"searched, {record['evaluations']} evaluations", "*-", winners),
    ):
        networks = [one for one in networks if one["fitness"] is not None]
        sizes = [one["bytes"] / 1e6 for one in networks]
        axes.plot(sizes, [one["fitness"] for one in networks], style, label=label)
    axes.set_xlabel("size, packed, float32 (MB)")
    axes.set_ylabel(f"pruned loss per token, {record['dev_set']}")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def _described(one: Evaluated, bank: MaskBank, choice: bool = True) -> dict[str, Any]:
    sizes = bank.sizes(one.choice)
    described = {
        "fitness": finite(one.fitness),
        "bytes": sizes.float32_bytes,
        "int8_bytes": sizes.int8_bytes,
        "parameters": sizes.parameters,
        "sparsity": 1 - bank.density(one.choice),
    }
    return {**described, "sparsities": one.choice} if choice else described


def finite(value: float) -> float | None:
    """What JSON can hold."""
    return value if math.isfinite(value) else None
