"""Selection by histograms against sorted lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.data_pruning.selection import select, select_many, totals

PRIORITIES = st.sampled_from(
    [0.0, -0.0, 1.0, 1.0 + 2**-23, 2.5, -1e-30, -3.0, 1e30, float("inf"), -float("inf"), 0.125]
) | st.floats(width=32, allow_nan=False)


@st.composite
def cases(draw):
    count = draw(st.integers(1, 40))
    strata = draw(st.integers(1, 4))
    column = lambda values: np.array(draw(st.lists(values, min_size=count, max_size=count)))  # noqa: E731
    priority = column(PRIORITIES).astype(np.float32)
    cost = (column(st.integers(1, 9)) / 8).astype(np.float32)
    codes = column(st.integers(0, strata - 1)).astype(np.uint8) if strata > 1 else None
    tier = None
    if draw(st.booleans()):
        tiers, kind = draw(st.sampled_from([((0, 1, 255), np.uint8), ((0, 255, 257), np.uint16)]))
        tier = column(st.sampled_from(tiers)).astype(kind)
    candidates = column(st.booleans()) if draw(st.booleans()) else None
    whole = totals(cost, codes, strata, candidates)
    budgets = np.array([draw(st.floats(-0.1, 1)) for _ in whole]) * whole
    return priority, cost, budgets, codes, tier, candidates


def runs(priority, cost, budgets, codes, tier, candidates):
    """For each stratum: the cuts that fit, the next one or None, what is left of the budget."""
    for stratum, budget in enumerate(np.maximum(budgets, 0)):
        mine = [
            i
            for i in range(len(priority))
            if (codes is None or codes[i] == stratum) and (candidates is None or candidates[i])
        ]
        mine.sort(key=lambda i: (0 if tier is None else tier[i], float(priority[i]), i))
        left, taken = float(budget), 0
        while taken < len(mine) and float(cost[mine[taken]]) <= left:
            left -= float(cost[mine[taken]])
            taken += 1
        yield mine[:taken], mine[taken] if taken < len(mine) else None, left


@settings(deadline=None)
@given(cases())
def test_as_sorted_lists(case):
    cost = case[1]
    chosen, following = set(), []
    for taken, after, left in runs(*case):
        chosen |= set(taken)
        if after is not None:
            following.append((after, left))
    covering = chosen | {cut for cut, left in following if left > 0}
    assert set(np.flatnonzero(select(*case, cover=True))) == covering
    keep = set(np.flatnonzero(select(*case)))
    assert chosen <= keep <= chosen | {cut for cut, _ in following}
    difference = sum(left for _, left in following) - sum(float(cost[i]) for i in keep - chosen)
    if following:
        assert abs(difference) <= max(float(cost[cut]) for cut, _ in following) / 2 + 1e-9
    priority, cost, budgets, codes, tier, candidates = case
    if codes is not None:
        among = np.ones(len(cost), bool) if candidates is None else candidates
        assert set(np.flatnonzero(select_many(priority, cost, budgets, codes, tier, among))) == (
            covering
        )


def test_over_a_million():
    count = (1 << 20) + 1000
    rng = np.random.default_rng(0)
    priority = rng.integers(0, 1000, count).astype(np.float32)  # many ties
    codes = rng.integers(0, 3, count).astype(np.uint8)
    cost = np.ones(count, np.float32)
    budgets = np.array([1000.0, 123456.0, 0.0])
    keep = select(priority, cost, budgets, codes)
    for stratum, budget in enumerate(budgets):
        mine = np.flatnonzero(codes == stratum)
        expected = mine[np.argsort(priority[mine], kind="stable")[: int(budget)]]
        assert np.array_equal(np.flatnonzero(keep & (codes == stratum)), np.sort(expected))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_nothing_and_everything(share):
    cost = np.full(7, 0.5, np.float32)
    assert (select(np.zeros(7, np.float32), cost, np.array([3.5 * share])) == bool(share)).all()
