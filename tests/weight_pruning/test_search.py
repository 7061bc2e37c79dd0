"""The search against brute force, random draws and its own interruptions."""

import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.weight_pruning.search.options import SearchOptions
from asrprune.weight_pruning.search.searching import search_sparsities
from asrprune.weight_pruning.search.space import SearchSpace
from tests.weight_pruning.search_cases import Toy, toy

QUARTERS = [0.0, 0.25, 0.5, 0.75]
TENTHS = SearchOptions().choices


def run(problem: Toy, options: SearchOptions, budgets: list[float], **more):
    return search_sparsities(
        problem.layers, options, problem.cost, budgets, problem.fitness, **more
    )


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_optimum_of_small_spaces(seed):
    """3,125 sub-networks, of which at most 496 are evaluated."""
    problem = toy(5, [0.0, 0.2, 0.4, 0.6, 0.8], seed)
    [budget] = problem.budgets(0.25 + 0.1 * seed)
    options = SearchOptions(choices=problem.choices)
    [found] = run(problem, options, [budget]).found
    assert found.best.fitness == pytest.approx(problem.optimum(budget), rel=1e-12)
    assert problem.calls <= options.evaluations() == 496


@pytest.mark.parametrize("method", ["evolution", "random"])
@pytest.mark.parametrize("seed", range(3))
def test_exhausts_a_space_whatever_its_shape(seed, method):
    """Every sub-network within the budget is found, where costs and losses are random numbers."""
    problem = toy(3, [0.0, 0.4, 0.7], seed, weird=True)
    budgets = problem.budgets(0.3, 0.8)
    options = SearchOptions(
        method=method, choices=problem.choices, generations=40, seed=seed, mutation=0.3
    )
    result = run(problem, options, budgets)
    for budget, found in zip(budgets, result.found, strict=True):
        assert found.best.fitness == pytest.approx(problem.optimum(budget), rel=1e-12)
    space = SearchSpace(3, problem.choices, problem.cost)
    rows = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)
    assert problem.calls == len(result.evaluated) == (space.costs(rows) <= budgets[1]).sum()


def holds(choices, windows, row) -> bool:
    """Whether sparsities are all of one window, or all equal ones of the choices."""
    values = set(row)
    return values <= set(choices) and (
        len(values) == 1 or any(values <= set(window) for window in windows or [choices])
    )


@pytest.mark.parametrize("method", ["evolution", "random"])
@pytest.mark.parametrize("weird", [False, True])
def test_finds_all_that_was_trained_and_nothing_else(weird, method):
    """Of three layers in tenths, with a sparsity that only uniform sub-networks may have."""
    choices = [0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.5]
    windows = [[0.0, 0.1, 0.2], [0.1, 0.2, 0.3], [0.2, 0.3, 0.4], [0.3, 0.4, 0.5]]
    problem = toy(3, choices, 1, weird)
    [budget] = problem.budgets(0.6)
    options = SearchOptions(method, choices, windows, population=150, mutation=0.3)
    result = run(problem, options, [budget])
    every = [row for row in itertools.product(choices, repeat=3) if holds(choices, windows, row)]
    within = {row for row in every if problem.cost(np.array([row]))[0] <= budget * (1 + 1e-9)}
    assert {tuple(one.choice.values()) for one in result.evaluated} == within
    best = min(problem.fitness(dict(zip(problem.layers, row, strict=True))) for row in within)
    assert result.found[0].best.fitness == best


def test_without_jitter_only_uniform_sub_networks_are_searched():
    problem = toy(6, TENTHS, 0)
    options = SearchOptions(windows=[[tenth] for tenth in TENTHS])
    result = run(problem, options, problem.budgets(0.01))
    assert [set(one.choice.values()) for one in result.evaluated] == [{0.9}]
    result = run(problem, options, problem.budgets(1.0))
    assert {tuple(one.choice.values()) for one in result.evaluated} == {(t,) * 6 for t in TENTHS}


def test_windows_still_beat_uniform_sub_networks():
    """The optimum of each layer is far from the others', so that windows bind."""
    windows = [TENTHS[first : first + 5] for first in range(6)]
    for seed in range(3):
        problem = toy(20, TENTHS, seed)
        [free] = run(problem, SearchOptions(), problem.budgets(0.45)).found
        [found] = run(problem, SearchOptions(windows=windows), problem.budgets(0.45)).found
        assert holds(TENTHS, windows, found.best.choice.values())
        assert not holds(TENTHS, windows, free.best.choice.values())
        assert free.best.fitness < found.best.fitness < 0.8 * found.uniform.fitness


@st.composite
def problems(draw):
    """Any tables, and costs that may not even be sums."""
    problem = toy(
        draw(st.integers(1, 6)), QUARTERS, draw(st.integers(0, 10**6)), draw(st.booleans())
    )
    shares = draw(st.lists(st.floats(0, 1.2), min_size=1, max_size=3))
    factor = draw(st.sampled_from([0.0, 0.5]))

    def cost(rows: np.ndarray) -> np.ndarray:
        sums = problem.cost(rows)
        return sums * (1 + factor * np.abs(rows[:, 0] - rows[:, -1]))

    some = st.lists(st.sampled_from(QUARTERS), min_size=1, unique=True).map(sorted)
    options = SearchOptions(
        method=draw(st.sampled_from(["evolution", "random"])),
        choices=QUARTERS,
        windows=draw(st.lists(some, max_size=4)),
        population=draw(st.integers(4, 7)),
        generations=draw(st.integers(0, 4)),
        parents=draw(st.floats(0, 1)),
        mutation=draw(st.floats(0, 1)),
        seed=draw(st.integers(0, 99)),
    )
    return problem, cost, problem.budgets(*shares), options


@settings(deadline=None, max_examples=60)
@given(problems())
def test_stays_within_budgets_and_shares_evaluations(case):
    problem, cost, budgets, options = case
    try:
        result = search_sparsities(problem.layers, options, cost, budgets, problem.fitness)
    except UserError as error:
        assert "below the smallest" in str(error)
        return
    of = lambda choice: float(cost(np.array([list(choice.values())]))[0])  # noqa: E731
    assert [found.budget for found in result.found] == budgets
    choices = [tuple(one.choice.values()) for one in result.evaluated]
    assert len(set(choices)) == len(choices) == problem.calls
    assert problem.calls <= options.evaluations(len(set(budgets)))
    for one in result.evaluated:
        assert holds(QUARTERS, options.windows, one.choice.values())
        assert one.cost == pytest.approx(of(one.choice))
        assert one.cost <= max(budgets) * (1 + 1e-9)
        assert one.fitness == problem.fitness(one.choice)
    for found in result.found:
        assert of(found.best.choice) <= found.budget * (1 + 1e-9)
        within = [one for one in result.evaluated if one.cost <= found.budget * (1 + 1e-9)]
        assert found.best.fitness == min(one.fitness for one in within)
        uniform = [one for one in within if len(set(one.choice.values())) == 1]
        assert (found.uniform is None) == (not uniform)
        if uniform:
            assert found.uniform.fitness == min(one.fitness for one in uniform)
        steps = [fitness for _, fitness in found.history]
        assert len(steps) <= options.generations + 1 and steps[-1] == found.best.fitness
        assert steps == sorted(steps, reverse=True)
    ordered = sorted(result.found, key=lambda found: found.budget)
    fitness = [found.best.fitness for found in ordered]
    assert fitness == sorted(fitness, reverse=True)  # more budget is never worse


def test_uniform_sub_networks_are_in_the_first_population():
    problem = toy(7, TENTHS, 0)
    budgets = problem.budgets(0.4, 0.6)
    result = run(problem, SearchOptions(generations=0), budgets)
    uniform = [one.choice["layer0.weight"] for one in result.evaluated[:6]]
    assert uniform == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert all(len(set(one.choice.values())) == 1 for one in result.evaluated[:6])
    assert len(result.evaluated) == 2 * 16


def test_beats_random_draws_and_uniform_sub_networks():
    """Means over problems of 40 layers, at equal numbers of evaluations."""
    searched, drawn = [], []
    for seed in range(4):
        problem = toy(40, TENTHS, seed)
        for method, ratios in (("evolution", searched), ("random", drawn)):
            result = run(problem, SearchOptions(method=method), problem.budgets(0.45))
            assert len(result.evaluated) == 496
            [found] = result.found
            ratios.append(found.best.fitness / found.uniform.fitness)
    assert max(searched) < min(drawn) < 1
    assert np.mean(searched) < 0.8 * np.mean(drawn)


def test_result_is_a_function_of_the_seed():
    problem = toy(12, TENTHS, 3)
    budgets = problem.budgets(0.5, 0.3)
    options = SearchOptions(generations=5)
    result = run(problem, options, budgets)
    assert run(problem, options, budgets) == result
    turned = run(problem, options, budgets[::-1])
    assert turned.evaluated == result.evaluated and turned.found == result.found[::-1]
    assert run(problem, dataclasses.replace(options, seed=1), budgets) != result
    doubled = run(problem, options, budgets + budgets)
    assert doubled.evaluated == result.evaluated and doubled.found == result.found * 2


def test_of_equal_ones_the_cheapest_is_best():
    problem = toy(6, QUARTERS, 0)
    problem.loss_table[:] = 1.0
    result = run(problem, SearchOptions(choices=QUARTERS, generations=2), problem.budgets(0.8))
    assert result.found[0].best.cost == min(one.cost for one in result.evaluated)


class Stop(Exception):
    """A run is stopped."""


def stopping(problem: Toy, last: int):
    """A fitness that stops the run at its call number ``last``, counted from 0."""
    calls = iter(range(10**6))

    def fitness(choice: dict[str, float]) -> float:
        if next(calls) == last:
            raise Stop
        value = problem.fitness(choice)
        return math.nan if choice["layer0.weight"] == 0.25 else value  # some are of no use

    return fitness


@pytest.mark.parametrize("method", ["evolution", "random"])
def test_resumes_at_every_evaluation(tmp_path, monkeypatch, method):
    """Stopped before each, with a piece of a line or without: the same result, the same log."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 2,000 of them would last
    problem = toy(4, QUARTERS, 1)
    options = SearchOptions(method=method, choices=QUARTERS, population=5, generations=3)
    arguments = problem.layers, options, problem.cost, problem.budgets(0.3, 0.6)
    calm = tmp_path / "calm.jsonl"
    expected = search_sparsities(*arguments, stopping(problem, -1), log_path=calm)
    lines = calm.read_bytes().splitlines(keepends=True)
    count = len(expected.evaluated)
    assert len(lines) == 1 + count == 1 + problem.calls and count == 40
    assert any(math.isinf(one.fitness) for one in expected.evaluated)
    for stop in range(count):
        path = tmp_path / f"{stop}.jsonl"
        with pytest.raises(Stop):
            search_sparsities(*arguments, stopping(problem, stop), log_path=path)
        assert path.read_bytes().count(b"\n") == 1 + stop
        with open(path, "ab") as file:  # what a kill leaves of the next line
            file.write(lines[1 + stop][: stop * 7 % len(lines[1 + stop])])
        problem.calls = 0
        assert search_sparsities(*arguments, stopping(problem, -1), log_path=path) == expected
        assert problem.calls == count - stop  # none twice
        without_times = [line.split(b'"sparsity"')[1] for line in lines[1:]]
        again = path.read_bytes().splitlines(keepends=True)
        assert [line.split(b'"sparsity"')[1] for line in again[1:]] == without_times


def test_resumes_after_every_evaluation_of_one_process(tmp_path):
    """Each run is stopped after one more evaluation."""
    problem = toy(4, QUARTERS, 2)
    options = SearchOptions(choices=QUARTERS, population=4, generations=4)
    arguments = problem.layers, options, problem.cost, problem.budgets(0.5)
    expected = search_sparsities(*arguments, stopping(problem, -1))
    for _ in range(len(expected.evaluated) - 1):
        with pytest.raises(Stop):
            search_sparsities(*arguments, stopping(problem, 1), log_path=tmp_path / "log.jsonl")
    assert (
        search_sparsities(*arguments, stopping(problem, 1), log_path=tmp_path / "log.jsonl")
        == expected
    )
    assert (
        search_sparsities(*arguments, stopping(problem, 0), log_path=tmp_path / "log.jsonl")
        == expected
    )


KILLED = """
import os, sys
from asrprune.weight_pruning.search.searching import search_sparsities
from asrprune.weight_pruning.search.options import SearchOptions
from tests.weight_pruning.search_cases import toy
problem = toy(6, [0.0, 0.5], 0)
def fitness(choice):
    if problem.calls == 11:
        os.kill(os.getpid(), 9)
    return problem.fitness(choice)
options = SearchOptions(choices=problem.choices, population=8, generations=3)
[found] = search_sparsities(
    problem.layers, options, problem.cost, problem.budgets(0.5), fitness, log_path=sys.argv[1]
).found
print(found.best, found.history)
"""


def test_killed_processes_go_on(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log.jsonl")]
    root = Path(__file__).parents[2]
    codes, output = [-signal.SIGKILL], ""
    while codes[-1] == -signal.SIGKILL and len(codes) < 6:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": "."}
        )
        codes.append(done.returncode)
        output = done.stdout
    assert codes[-1] == 0 and len(codes) > 3, codes
    problem = toy(6, [0.0, 0.5], 0)
    options = SearchOptions(choices=problem.choices, population=8, generations=3)
    [found] = run(problem, options, problem.budgets(0.5)).found
    assert output == f"{found.best} {found.history}\n"


def test_a_log_serves_other_searches(tmp_path):
    """More generations, another budget, the control: what is known is not evaluated again."""
    problem = toy(8, TENTHS, 5)
    options = SearchOptions(generations=3)
    budgets = problem.budgets(0.4)
    path = tmp_path / "log.jsonl"
    first = run(problem, options, budgets, log_path=path)
    more = dataclasses.replace(options, generations=6)
    for other, wanted in (
        (more, budgets),
        (more, budgets + problem.budgets(0.7)),
        (dataclasses.replace(options, method="random"), budgets),
    ):
        expected = run(problem, other, wanted)
        problem.calls = 0
        assert run(problem, other, wanted, log_path=path) == expected
        assert problem.calls <= len(expected.evaluated) - 6  # the uniform ones at least
    problem.calls = 0
    assert run(problem, options, budgets, log_path=path) == first
    assert problem.calls == 0


def test_reports_its_progress():
    problem = toy(5, TENTHS, 0)
    seen = []
    run(
        problem,
        SearchOptions(generations=1),
        problem.budgets(0.3, 0.5),
        progress=lambda done, most: seen.append((done, most)),
    )
    assert seen == [(done, 64) for done in range(1, 65)]


def test_a_budget_below_the_smallest_is_refused():
    problem = toy(3, QUARTERS, 0)
    problem.cost_table = np.full((3, 4), 4e6) * (1 - np.array(QUARTERS))
    options = SearchOptions(choices=QUARTERS)
    for budget in (2.5e6, math.nan):
        with pytest.raises(UserError, match=f"budget={budget:,.12g} .* needs 3,000,000: raise"):
            run(problem, options, [1e7, budget])
    [found] = run(problem, options, [3e6 * (1 - 1e-12)]).found  # sums of floats are forgiven
    assert set(found.best.choice.values()) == {0.75}
    assert problem.calls == 1


def test_nothing_of_use_is_refused():
    problem = toy(3, QUARTERS, 0)
    problem.loss_table[:] = np.nan
    with pytest.raises(UserError, match="none of the .* within budget=.* has a finite fitness"):
        run(problem, SearchOptions(choices=QUARTERS), problem.budgets(0.5))


def test_a_cost_of_another_shape_is_refused():
    problem = toy(3, QUARTERS, 0)
    with pytest.raises(ValueError, match=r"must return \(n,\)"):
        search_sparsities(problem.layers, SearchOptions(), lambda rows: 1.0, [1.0], problem.fitness)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"choices": []}, "choices"),
        ({"choices": [0.5, 0.1]}, "ascending"),
        ({"choices": [0.1, 0.1]}, "ascending"),
        ({"choices": [0.0, 1.0]}, "below 1"),
        ({"choices": [-0.1, 0.5]}, "at least 0"),
        ({"choices": [math.nan]}, "choices"),
        ({"windows": [[0.1], []]}, r"windows: \[\] must be ascending values of search.choices"),
        ({"windows": [[0.2, 0.1]]}, r"windows: \[0.2, 0.1\] must be"),
        ({"windows": [[0.1, 0.15]]}, r"windows: \[0.1, 0.15\] must be"),
        ({"population": 9}, "at least 10"),
        ({"parents": 1.5}, "parents"),
        ({"method": "evolutoin"}, "did you mean 'evolution'"),
    ],
)
def test_options_out_of_their_limits(options, message):
    with pytest.raises(UserError, match=message):
        check(SearchOptions(**options), "search.")


@pytest.mark.parametrize("layers, budgets", [(0, [1.0]), (3, [])])
def test_nothing_to_search(layers, budgets):
    problem = toy(layers, QUARTERS, 0)
    with pytest.raises(UserError, match="at least one layer and one budget"):
        run(problem, SearchOptions(), budgets)
