"""How the search makes new sub-networks: of which parents, by what steps, how near the budget."""

import numpy as np
import pytest

from asrprune.weight_pruning.search import searching
from asrprune.weight_pruning.search.evaluations import EvaluationLog
from asrprune.weight_pruning.search.options import SearchOptions
from asrprune.weight_pruning.search.space import SearchSpace
from tests.weight_pruning.search_cases import toy

TENTHS = SearchOptions().choices


def make(layers=12, shares=(0.5,), **options):
    """A problem, and a search of it that has evaluated nothing yet."""
    problem = toy(layers, TENTHS, 0)
    space = SearchSpace(layers, TENTHS, problem.cost)
    log = EvaluationLog(None, problem.layers, problem.fitness, None)
    budgets = sorted(problem.budgets(*shares))
    return problem, searching._Search(space, SearchOptions(**options), budgets, log, None)


def test_a_crossover_takes_layers_of_both_parents_and_a_mutation_steps_both_ways():
    _, search = make(mutation=0.2)
    low, high = np.full(12, 3), np.full(12, 7)
    children = [search._vary(np.stack([low, high]), np.random.default_rng(n)) for n in range(400)]
    crossed = [child for child in children if set(child) == {3, 7}]
    assert 60 < len(crossed) < 140  # a half are crossovers, a half of these of two parents
    assert np.mean(crossed) == pytest.approx(5, abs=0.3)
    steps = {1, 2, 3, 4, 5, 6, 7, 8, 9}
    moved = [child for child in children if len(set(child)) > 1 and set(child) != {3, 7}]
    assert {int(value) for child in moved for value in child} == steps
    around = [min((child - low).tolist(), (child - high).tolist(), key=lambda x: np.abs(x).sum())
              for child in moved]  # fmt: skip
    changes = np.array(around)
    assert set(changes[changes != 0]) == {-2, -1, 1, 2}
    assert (changes != 0).any(1).all() and 0.15 < (changes != 0).mean() < 0.4


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_parents_are_the_best_within_their_own_budget(share, monkeypatch):
    problem, search = make(shares=(0.3, 0.7), population=20, parents=share, generations=1)
    seen = []
    vary = searching._Search._vary

    def watched(self, parents, rng):
        seen.append(parents.copy())
        return vary(self, parents, rng)

    monkeypatch.setattr(searching._Search, "_vary", watched)
    search._breed(0)
    assert not seen  # the first ones have no parents
    rows, fitness = np.array(search.rows), np.array(search.fitness)
    costs = search.space.costs(rows)
    search._breed(1)
    found = {parents.tobytes() for parents in seen}
    expected = set()
    for budget in search.budgets:
        within = np.flatnonzero(costs <= budget * (1 + 1e-9))
        best = within[np.lexsort((costs[within], fitness[within]))][: round(share * 20)]
        expected.add(rows[best].tobytes())
    assert found == expected and len(expected) == 2


def test_generations_draw_anew(monkeypatch):
    """Else each would bring the last one's children again."""
    _, search = make(shares=(0.5,), population=16)
    keys = []
    seed = searching.key_to_seed
    monkeypatch.setattr(searching, "key_to_seed", lambda *key: keys.append(key) or seed(*key))
    for generation in range(3):
        search._breed(generation)
    assert len(set(keys)) == len(keys) >= 40


def test_most_children_use_up_their_budget(monkeypatch):
    problem, search = make(population=200)
    spare = {True: [], False: []}
    into = SearchSpace.into

    def watched(self, row, budget, fill, rng):
        row = into(self, row, budget, fill, rng)
        spare[fill].append(budget - self.costs(row[None])[0])
        return row

    monkeypatch.setattr(SearchSpace, "into", watched)
    search._breed(0)
    step = 0.1 * problem.cost_table.max()  # of the largest layer
    assert 0.65 < len(spare[True]) / (len(spare[True]) + len(spare[False])) < 0.85
    assert max(spare[True]) < step * (1 + 1e-9) < max(spare[False])
    assert min(spare[True] + spare[False]) > -1e-9


def test_first_draws_lie_about_the_uniform_one_within_the_budget():
    _, search = make()
    for share, middle in ((0.2, 8), (0.5, 5)):
        budget = toy(12, TENTHS, 0).budgets(share)[0]
        rows = [search.space.near_uniform(budget, np.random.default_rng(n)) for n in range(300)]
        assert np.median(rows) == pytest.approx(middle, abs=1)
