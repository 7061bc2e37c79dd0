"""Search for the best sub-networks within budgets, by evolution.

The search knows no model: it takes names of layers, a cost and a fitness. As in the search of
Omni-sparsity DNN (arXiv 2110.08352), no training follows. The scheme is the usual one: half
mutation, half crossover of the best so far. Two changes were measured. Children are moved to the
budget, instead of drawn again until one is within the budget. Mutations step to a near sparsity.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.base.randomness import key_to_seed
from asrprune.weight_pruning.search.evaluations import EvaluationLog, Fitness
from asrprune.weight_pruning.search.options import SearchOptions
from asrprune.weight_pruning.search.space import Cost, SearchSpace

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # evaluations so far, and their maximum
_FILLED = 0.75  # share of children that use up their budget
_ATTEMPTS = 20  # to find a new child; then as many draws from the whole space


@dataclass(frozen=True)
class Evaluated:
    """A sub-network, with its cost and fitness."""

    choice: dict[str, float]  # layer -> sparsity
    cost: float
    fitness: float  # lower is better


@dataclass(frozen=True)
class Found:
    """The best sub-network within a budget, among all that were evaluated."""

    budget: float
    best: Evaluated
    uniform: Evaluated | None  # the best with equal sparsities; None: none fits
    # after each generation with new sub-networks: evaluations so far, fitness of the best
    history: list[tuple[int, float]]


@dataclass(frozen=True)
class SearchResult:
    """The result of a search."""

    found: list[Found]  # in the order of the budgets
    evaluated: list[Evaluated]  # in the order of evaluation, without duplicates
    seconds: float = field(compare=False)  # of all fitness values, earlier runs included


def search_sparsities(
    layers: Sequence[str],
    options: SearchOptions,
    cost: Cost,
    budgets: Sequence[float],
    fitness: Fitness,
    *,
    log_path: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Find the sub-network of the least fitness within each budget.

    The budgets share all evaluations. Parents and winners of a budget are the best of all
    sub-networks within the budget, so a larger budget's winner is never worse. The first population
    holds the uniform sub-networks. All others have sparsities of one of ``options.windows``.
    Nothing is evaluated twice. If no new child can be found, a generation has fewer children. The
    result is a pure function of the arguments, except ``log_path`` and ``progress``.

    Args:
        layers: names of the layers.
        options: the options of the search.
        cost: see :data:`~asrprune.weight_pruning.search.space.Cost`, in the budgets' unit.
        budgets: maximum costs.
        fitness: takes a dictionary of layers and sparsities. A value that is not finite is the
            worst.
        log_path: file for the evaluations, each written at once. A killed search goes on with this
            file. So does a search with other options or budgets.
        identity: plain values of what the fitness depends on; they must equal the file's.
        progress: called after each evaluation.

    Raises:
        UserError: an option is out of its limits; a budget is below the smallest sub-network; the
            log holds something else; or nothing within a budget has a finite fitness.
    """
    check(options, "search.")
    if not layers or not budgets:
        raise UserError("a search needs at least one layer and one budget")
    space = SearchSpace(len(layers), options.choices, cost, options.windows)
    for budget in budgets:
        space.require(budget)
    with EvaluationLog(log_path, layers, fitness, identity) as evaluations:
        return _Search(space, options, sorted(set(budgets)), evaluations, progress).run(budgets)


class _Search:
    """All evaluated sub-networks, and how new ones are made."""

    def __init__(
        self,
        space: SearchSpace,
        options: SearchOptions,
        budgets: list[float],
        evaluations: EvaluationLog,
        progress: Progress | None,
    ) -> None:
        self.space, self.options, self.budgets = space, options, budgets
        self.evaluations, self.progress = evaluations, progress
        self.places: dict[bytes, int] = {}  # row -> its index in the lists
        self.rows: list[np.ndarray] = []
        self.costs: list[float] = []
        self.fitness: list[float] = []
        self.seconds = 0.0

    def run(self, budgets: Sequence[float]) -> SearchResult:
        """Evaluate generation by generation, and pick the winners of the budgets."""
        uniform = self.space.uniform
        for row in uniform[self.space.fits(self.space.costs(uniform), self.budgets[-1])]:
            self._add(row)
        history: dict[float, list[tuple[int, float]]] = {budget: [] for budget in self.budgets}
        for generation in range(self.options.generations + 1):
            before = len(self.rows)
            self._breed(generation)
            if generation and len(self.rows) == before:
                break  # the whole space is known
            for budget, steps in history.items():
                steps.append((len(self.rows), self.fitness[self._best(budget, 1)[0]]))
            bests = (
                f"{steps[-1][1]:.6g} within {budget:,.12g}" for budget, steps in history.items()
            )
            log.info(
                "generation %d: %d evaluations, %s", generation, len(self.rows), ", ".join(bests)
            )
        return SearchResult(
            [self._found(budget, history[budget]) for budget in budgets],
            [self._evaluated(place) for place in range(len(self.rows))],
            self.seconds,
        )

    def _breed(self, generation: int) -> None:
        """Evaluate a generation; each draw is keyed by the generation and the child's number."""
        options, count = self.options, len(self.budgets)
        parents: list[np.ndarray] | None = None
        if generation and options.method == "evolution":
            most = max(2, round(options.parents * options.population))
            best = [self._best(budget, most) for budget in self.budgets]
            parents = [np.stack([self.rows[place] for place in places]) for places in best]
        # the uniform rows are part of the first population
        for place in range(0 if generation else len(self.rows), options.population * count):
            key = key_to_seed("sub-network search", options.seed, generation, place)
            rng, number = np.random.default_rng(key), place % count
            own = None if parents is None else parents[number]
            child = self._child(self.budgets[number], own, rng)
            if child is not None:
                self._add(child)

    def _child(
        self, budget: float, parents: np.ndarray | None, rng: np.random.Generator
    ) -> np.ndarray | None:
        """Return a row within the budget that was never evaluated; None if none was found."""
        for attempt in range(2 * _ATTEMPTS):
            fill = rng.random() < _FILLED
            if attempt >= _ATTEMPTS:
                row = self.space.anywhere(rng)
            elif parents is None:
                row = self.space.near_uniform(budget, rng)
            else:
                row = self._vary(parents, rng)
            row = self.space.into(row, budget, fill, rng)
            if row.tobytes() not in self.places:
                return row
        return None

    def _vary(self, parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a mutation of one parent, or a crossover of two, layer by layer."""
        first, second = parents[rng.integers(len(parents), size=2)]
        layers = self.space.layers
        if rng.random() < 0.5:
            return self.space.nearest(np.where(rng.random(layers) < 0.5, first, second), rng)
        moved = rng.random(layers) < self.options.mutation
        moved[rng.integers(layers)] = True  # else the child may equal its parent
        steps = rng.choice((-2, -1, 1, 2), layers)
        return self.space.moved(first, moved * steps, rng)

    def _add(self, row: np.ndarray) -> None:
        """Evaluate a new row."""
        fitness, seconds = self.evaluations.evaluate(self.space.choices[row])
        self.places[row.tobytes()] = len(self.rows)
        self.rows.append(row)
        self.costs.append(float(self.space.costs(row[None])[0]))
        self.fitness.append(fitness)
        self.seconds += seconds
        if self.progress is not None:
            self.progress(len(self.rows), self.options.evaluations(len(self.budgets)))

    def _best(self, budget: float, most: int) -> np.ndarray:
        """Return indices of the best within a budget, best first; ties: cheaper, then earlier."""
        costs, fitness = np.array(self.costs), np.array(self.fitness)
        within = np.flatnonzero(self.space.fits(costs, budget))
        return within[np.lexsort((costs[within], fitness[within]))][:most]

    def _evaluated(self, place: int) -> Evaluated:
        sparsities = self.space.choices[self.rows[place]].tolist()
        choice = dict(zip(self.evaluations.layers, sparsities, strict=True))
        return Evaluated(choice, self.costs[place], self.fitness[place])

    def _found(self, budget: float, history: list[tuple[int, float]]) -> Found:
        places = self._best(budget, len(self.rows)).tolist()
        if not np.isfinite(self.fitness[places[0]]):
            raise UserError(
                f"none of the {len(places)} sub-networks within budget={budget:,.12g} has a finite "
                "fitness: is the model a trained one?"
            )
        known = {self.places.get(row.tobytes()) for row in self.space.uniform}
        uniform = next((place for place in places if place in known), None)
        return Found(
            budget,
            self._evaluated(places[0]),
            None if uniform is None else self._evaluated(uniform),
            history,
        )
