"""Records the result of a search: the best sub-network of each budget, uniform ones, and a plot."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.figures import save_figure
from asrprune.export.budget import BYTES, MILLISECONDS, MULTIPLY_ADDS, WEIGHTS, Measure
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.search.rank_correlation import rank_correlation
from asrprune.weight_pruning.search.searching import Evaluated, SearchResult

Rates = dict[tuple[float, ...], float]  # word error rates, by the layers' sparsities
BAND = 0.05  # a network nearly uses up its budget if its cost is at most this share below
_ALWAYS = (BYTES, MULTIPLY_ADDS)  # costs that a record has in addition to the search's own unit
_SIZES = {
    BYTES: "int8 files (MB)",
    WEIGHTS: "weights that are kept or never pruned (millions)",
    MULTIPLY_ADDS: "multiply-adds of the encoder for a second of speech (millions)",
    MILLISECONDS: "estimated milliseconds of the int8 encoder, one thread",
}


def key_of(one: Evaluated) -> tuple[float, ...]:
    """Return the sparsities of a sub-network's layers, the key of :data:`Rates`."""
    return tuple(one.choice.values())


def uniform_of(result: SearchResult) -> list[Evaluated]:
    """Return the sub-networks that have one sparsity in all layers, the largest first."""
    uniform = [one for one in result.evaluated if len(set(one.choice.values())) == 1]
    return sorted(uniform, key=lambda one: -one.cost)


def record_of(
    result: SearchResult,
    budgets: list[str],
    model: Transducer,
    bank: MaskBank,
    measure: Measure,
    chosen: Sequence[Sequence[Evaluated]],
    rates: Rates,
) -> dict[str, Any]:
    """Return a search as plain values: ``budgets``, ``uniform`` sub-networks, ``evaluations``.

    Args:
        result: the result of the search.
        budgets: the budgets as the user wrote them, in the order of the result.
        model: the model that was searched.
        bank: the masks of the model.
        measure: the measure of the costs.
        chosen: the candidates of each budget, the chosen one first.
        rates: word error rates of sub-networks that were decoded; they get a ``wer``.
    """
    unit, described = measure.unit, _Describing(model, bank, measure, rates)
    return {
        "unit": unit,
        "budgets": [
            {
                "budget": text,
                unit: found.budget,
                "best": described.whole(candidates[0]),
                "candidates": [described.whole(one) for one in candidates],
                "uniform": found.uniform and described(found.uniform),
                "history": [list(step) for step in found.history],
            }
            for text, found, candidates in zip(budgets, result.found, chosen, strict=True)
        ],
        "uniform": [described(one) for one in uniform_of(result)],
        "evaluations": len(result.evaluated),
        "seconds": round(result.seconds, 3),
    }


def same_size(evaluated: Sequence[Evaluated], budget: float, count: int) -> list[Evaluated]:
    """Choose at most ``count`` sub-networks that nearly use up a budget.

    They are spread evenly over the ranks of the fitness, from the best to the worst. Sub-networks
    of equal size show whether the fitness predicts error rates. Sub-networks of all sizes would not
    show this: their size alone would predict error rates well.

    Args:
        evaluated: the sub-networks to choose from.
        budget: the budget, in the unit of the costs.
        count: how many sub-networks to choose.
    """
    ranked = sorted(
        (
            one
            for one in evaluated
            if math.isfinite(one.fitness) and (1 - BAND) * budget <= one.cost <= (1 + 1e-9) * budget
        ),
        key=lambda one: (one.fitness, one.cost),
    )
    last = len(ranked) - 1
    places = {round(last * place / max(count - 1, 1)) for place in range(count)}
    return [ranked[place] for place in sorted(places)] if ranked else []


def sampled(
    samples: Sequence[Sequence[Evaluated]], budgets: Sequence[str], rates: Rates, unit: str
) -> dict[str, Any]:
    """Return error rates of the sampled sub-networks, and their rank correlation with the fitness.

    Args:
        samples: one sample for each budget, chosen by `same_size`.
        budgets: the budgets as the user wrote them.
        rates: word error rates of all sampled sub-networks.
        unit: the unit of the costs.
    """
    of_each = [
        {
            "budget": text,
            "rank_correlation": _correlation(sample, rates),
            "sample": [
                {
                    "fitness": one.fitness,
                    "wer": finite(rates[key_of(one)]),
                    unit: one.cost,
                }
                for one in sample
            ],
        }
        for text, sample in zip(budgets, samples, strict=True)
    ]
    known = [one["rank_correlation"] for one in of_each if one["rank_correlation"] is not None]
    return {
        "rank_correlation": sum(known) / len(known) if known else None,
        "band": BAND,
        "budgets": of_each,
    }


def _correlation(sample: Sequence[Evaluated], rates: Rates) -> float | None:
    """Return the rank correlation of fitness and error rate; None if it is undefined."""
    found = [rates[key_of(one)] for one in sample]
    return finite(rank_correlation([one.fitness for one in sample], found))


def draw(record: dict[str, Any], path: Path) -> None:
    """Plot the fitness over the size, and the word error rate if sub-networks were decoded.

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
        scale = 1 if record["unit"] == MILLISECONDS else 1e6
        for label, style, networks in (
            ("one sparsity for all layers", "o-", record["uniform"]),
            (f"searched, {record['evaluations']} evaluations", "*-", winners),
        ):
            points = [
                (one[record["unit"]] / scale, (100 if measure == "wer" else 1) * one[measure])
                for one in networks
                if one.get(measure) is not None
            ]
            axes.plot(*zip(*points, strict=True) if points else ((), ()), style, label=label)
        axes.set_xlabel(_SIZES[record["unit"]])
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


class _Describing:
    """Describes a sub-network by plain values, with its costs."""

    def __init__(self, model: Transducer, bank: MaskBank, measure: Measure, rates: Rates):
        """Prepare the costs that can be measured for this model."""
        self.bank, self.rates = bank, rates
        self.measures = {measure.unit: measure}
        for unit in _ALWAYS:
            # With blocks there are no sizes in bytes. The multiply-adds of some layers cannot be
            # counted. Some models cannot be exported.
            with suppress(UserError):
                self.measures.setdefault(unit, Measure(model, bank, unit))

    def whole(self, one: Evaluated) -> dict[str, Any]:
        """Describe a sub-network with the sparsities of its layers."""
        return {**self(one), "sparsities": one.choice}

    def __call__(self, one: Evaluated) -> dict[str, Any]:
        """Describe a sub-network without the sparsities of its layers."""
        described = {
            "fitness": finite(one.fitness),
            **{unit: self._cost(unit, one) for unit in dict.fromkeys((*_ALWAYS, *self.measures))},
            "parameters": self.bank.kept_parameters(one.choice),
            "sparsity": 1 - self.bank.density(one.choice),
        }
        if key_of(one) in self.rates:
            described["wer"] = finite(self.rates[key_of(one)])
        return described

    def _cost(self, unit: str, one: Evaluated) -> float | None:
        """Return the cost in a unit; None if the unit cannot be measured."""
        if unit not in self.measures:
            return None
        cost = self.measures[unit].of(one.choice)
        return round(cost, 6) if unit == MILLISECONDS else round(cost)


def finite(value: float) -> float | None:
    """Return the value; None, which JSON can hold, if the value is infinite or NaN."""
    return value if math.isfinite(value) else None
