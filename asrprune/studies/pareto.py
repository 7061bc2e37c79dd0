"""What a search for sub-networks leaves: the best of each size, beside uniform ones; a plot."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asrprune.errors import UserError
from asrprune.export.budget import BYTES, MULTIPLY_ADDS, Measure
from asrprune.files import atomic_path
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.rank_correlation import rank_correlation
from asrprune.weight_pruning.search import Evaluated, SearchResult

Rates = dict[tuple[float, ...], float]  # word error rates, by the layers' sparsities
_SIZES = {
    BYTES: "size, packed, float32 (MB)",
    MULTIPLY_ADDS: "multiply-adds of the encoder, a second of speech (millions)",
}


def key_of(one: Evaluated) -> tuple[float, ...]:
    """The sparsities of a sub-network's layers: what :data:`Rates` know it by."""
    return tuple(one.choice.values())


def uniform_of(result: SearchResult) -> list[Evaluated]:
    """The sub-networks of one sparsity for all layers, the largest first."""
    uniform = [one for one in result.evaluated if len(set(one.choice.values())) == 1]
    return sorted(uniform, key=lambda one: -one.cost)


def record_of(
    result: SearchResult,
    budgets: list[str],
    model: Transducer,
    bank: MaskBank,
    unit: str,
    rates: Rates,
) -> dict[str, Any]:
    """A search as plain values: ``budgets``, the ``uniform`` sub-networks, ``evaluations``.

    :param budgets: as they were asked for, in the order of the result's.
    :param unit: of the costs, bytes or multiply_adds.
    :param rates: a network that is in it has a ``wer``.
    """
    described = _Describing(model, bank, rates)
    return {
        "unit": unit,
        "budgets": [
            {
                "budget": text,
                unit: found.budget,
                "best": {**described(found.best), "sparsities": found.best.choice},
                "uniform": found.uniform and described(found.uniform),
                "history": [list(step) for step in found.history],
            }
            for text, found in zip(budgets, result.found, strict=True)
        ],
        "uniform": [described(one) for one in uniform_of(result)],
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


def sampled(sample: Sequence[Evaluated], rates: Rates, bank: MaskBank) -> dict[str, Any]:
    """Error rates of some sub-networks, and how well the fitness orders them as these do."""
    found = [rates[key_of(one)] for one in sample]
    return {
        "rank_correlation": finite(rank_correlation([one.fitness for one in sample], found)),
        "sample": [
            {
                "fitness": one.fitness,
                "wer": finite(rate),
                "bytes": bank.sizes(one.choice).float32_bytes,
            }
            for one, rate in zip(sample, found, strict=True)
        ],
    }


def draw(record: dict[str, Any], path: Path) -> None:
    """Fitness, and word error rates where there are, against size.

    Equal records give equal files.
    """
    from matplotlib.figure import Figure

    measures = {"fitness": f"pruned loss per token, {record['dev_set']}"}
    winners = sorted(
        (one["best"] for one in record["budgets"]), key=lambda one: one[record["unit"]]
    )
    if any("wer" in one for one in winners):
        measures["wer"] = f"WER (%), {record['dev_set']}, greedy search"
    figure = Figure(figsize=(7 * len(measures), 4.5), layout="constrained")
    for axes, (measure, name) in zip(
        figure.subplots(1, len(measures), squeeze=False)[0], measures.items(), strict=True
    ):
        for label, style, networks in (
            ("one sparsity for all layers", "o-", record["uniform"]),
            (f"searched, {record['evaluations']} evaluations", "*-", winners),
        ):
            points = [
                (one[record["unit"]] / 1e6, (100 if measure == "wer" else 1) * one[measure])
                for one in networks
                if one[measure] is not None
            ]
            axes.plot(*zip(*points, strict=True) if points else ((), ()), style, label=label)
        axes.set_xlabel(_SIZES[record["unit"]])
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


class _Describing:
    """Plain values of a sub-network, its cost in each unit among them."""

    def __init__(self, model: Transducer, bank: MaskBank, rates: Rates):
        self.bank, self.rates = bank, rates
        self.work: Measure | None = None
        with suppress(UserError):  # of layers whose work cannot be counted
            self.work = Measure(model, bank, MULTIPLY_ADDS)

    def __call__(self, one: Evaluated) -> dict[str, Any]:
        sizes = self.bank.sizes(one.choice)
        described = {
            "fitness": finite(one.fitness),
            "bytes": sizes.float32_bytes,
            "int8_bytes": sizes.int8_bytes,
            "multiply_adds": self.work and round(self.work.of(one.choice)),
            "parameters": sizes.parameters,
            "sparsity": 1 - self.bank.density(one.choice),
        }
        if key_of(one) in self.rates:
            described["wer"] = finite(self.rates[key_of(one)])
        return described


def finite(value: float) -> float | None:
    """What JSON can hold."""
    return value if math.isfinite(value) else None
