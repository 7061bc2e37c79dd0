"""Which sub-networks are decoded to see whether their loss tells more than their size."""

import math

import pytest
from scipy.stats import spearmanr

from asrprune.search.pareto import key_of, same_size, sampled
from asrprune.weight_pruning.search.searching import Evaluated


def test_a_sample_is_of_one_size_and_spread_over_its_ranks():
    values = [0.3, math.inf, 0.1, 0.5, 0.2, 0.4]
    networks = [Evaluated({"a": 0.1}, 98.0, value) for value in values]
    others = [Evaluated({"a": 0.1}, cost, 0.0) for cost in (94.0, 101.0)]
    assert [one.fitness for one in same_size(networks + others, 100, 3)] == [0.1, 0.3, 0.5]
    assert [one.fitness for one in same_size(networks, 100, 9)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert same_size(others, 100, 3) == []


def test_a_size_that_decides_all_correlates_with_nothing():
    """Loss and error rate that only depend on size are as alike as can be, but not within one."""
    networks = [Evaluated({"a": 0.5, "b": n / 100}, 100.0 * (1 + n // 5), n % 5 / 1e3 + n // 5)
                for n in range(20)]  # fmt: skip
    random = [3, 0, 4, 1, 2]
    rates = {key_of(one): n // 5 + random[n % 5] / 1e3 for n, one in enumerate(networks)}
    budgets = [100.0, 200.0, 300.0, 400.0]
    samples = [same_size(networks, budget, 5) for budget in budgets]

    found = sampled(samples, list(map(str, budgets)), rates, "bytes")
    expected = spearmanr(range(5), random).statistic
    assert found["rank_correlation"] == pytest.approx(expected) and abs(expected) < 0.3
    assert [one["rank_correlation"] for one in found["budgets"]] == pytest.approx(4 * [expected])
    assert sampled([[]], ["1"], {}, "bytes")["rank_correlation"] is None
