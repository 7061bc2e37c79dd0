"""Costs at equal error rates, against scipy, brute force and known truths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from asrprune.compare.time_to_wer.curve import Curve, Draws, cost_ratios, costs_at, monotone

WORDS = np.full(30, 500)
law = settings(deadline=None, max_examples=50)


@law
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=7))
def test_monotone_is_the_isotonic_regression_of_logarithms(rates):
    found = monotone(np.array([rates]))
    wanted = isotonic_regression(np.log(rates), increasing=False).x
    np.testing.assert_allclose(np.log(found[0]), wanted, atol=1e-12)


@law
@given(
    st.lists(st.floats(0.001, 1), min_size=1, max_size=5).map(lambda rates: sorted(rates)[::-1]),
    st.floats(0.0005, 1.5),
)
def test_costs_are_interpolated_between_logarithms(rates, wanted):
    costs = np.geomspace(10, 100, len(rates))
    [[found]] = costs_at(costs[None], np.array([rates]), np.array([[wanted]]))
    if wanted > rates[0] * (1 + 1e-8):
        assert found == 0
    elif wanted < rates[-1] * (1 - 1e-8):
        assert np.isinf(found)
    else:  # the least of many costs at which the interpolated rate is as good
        fine = np.geomspace(10, 100, 20001)
        curve = np.exp(np.interp(np.log(fine), np.log(costs), np.log(rates)))
        least = fine[np.flatnonzero(curve <= wanted * (1 + 1e-6))[0]]
        assert found == pytest.approx(least, rel=5e-4)


def curve(lengths, speed=1.0, floor=0.0, seeds=3, noise=0.0, seed=0, words=WORDS):
    """A power law of the cost: ``speed`` times as fast as one second for each unit of length."""
    rng = np.random.default_rng(seed)
    costs = np.array(lengths, float) / speed
    rates = floor + 0.5 / np.sqrt(np.array(lengths, float))
    rates = rates[:, None, None] * rng.lognormal(0, noise, (len(lengths), seeds, 1))
    rates = rates * np.linspace(0.5, 1.5, len(words))
    return Curve(np.repeat(costs[:, None], seeds, 1), rates * words)


def test_a_known_ratio_is_found():
    full, twice = curve([10, 20, 40, 80]), curve([8, 16, 30, 60, 100], speed=2.0)
    ratios = cost_ratios(full, twice, Draws(3, WORDS))
    for ratio in ratios:
        assert ratio.value == pytest.approx(2, rel=1e-6)
        assert ratio.low == pytest.approx(2, rel=1e-6) and ratio.high == pytest.approx(2, rel=1e-6)


def test_what_is_out_of_reach_is_said():
    full, short = curve([10, 20, 40, 80]), curve([15, 25])
    ratios = cost_ratios(full, short, Draws(3, WORDS))
    assert [round(ratio.value, 6) for ratio in ratios] == [np.inf, 1, 0, 0]
    # at most 80 s of full data for more than 25 s, at least 10 s for less than 15 s
    assert (ratios[3].low, ratios[3].high) == pytest.approx((0, 80 / 25))
    assert ratios[0].low == pytest.approx(10 / 15) and np.isinf(ratios[0].high)


def test_a_bound_says_no_more_than_it_can():
    """The method is 1.8 times as fast, but its trainings are too short, or too long, to show it."""
    full = curve([5, 10, 20], noise=0.01)
    short = cost_ratios(full, curve([5, 10], speed=1.8, noise=0.01, seed=1), Draws(3, WORDS))[2]
    assert short.value == 0 and short.high > 1.8
    long = cost_ratios(full, curve([40, 80], speed=1.8, noise=0.01, seed=1), Draws(3, WORDS))[2]
    assert np.isinf(long.value) and long.low < 1.8
    assert np.isinf(short.could_show) and np.isinf(long.could_show)


def test_intervals_hold_costs_that_vary():
    inside = 0
    for number in range(120):
        random = np.random.default_rng(number)
        exact = curve([10, 20, 40]), curve([10, 20, 40], speed=1.5)
        noisy = [
            Curve(costs * random.lognormal(0, 0.1, costs.shape), errors)
            for costs, errors in ((method.costs, method.errors) for method in exact)
        ]
        ratio = cost_ratios(*noisy, Draws(3, WORDS, resamples=400))[1]
        inside += ratio.low <= 1.5 <= ratio.high
    assert inside >= 105


def test_of_lengths_that_are_alike_the_shortest_counts():
    flat = Curve(np.array([[10.0], [20.0], [40.0]]), np.array([[[50.0]], [[20.0]], [[20.0]]]))
    other = Curve(np.array([[10.0], [20.0]]), np.array([[[50.0]], [[20.0]]]))
    ratios = cost_ratios(flat, other, Draws(1, np.array([100])))
    assert [ratio.value for ratio in ratios] == pytest.approx([1, 1, 1])


def test_times_that_are_not_known_are_left_out():
    full, other = curve([10, 20, 40]), curve([10, 20, 40])
    costs = full.costs.copy()
    costs[1, 0] = np.nan
    ratios = cost_ratios(Curve(costs, full.errors), other, Draws(3, WORDS))
    assert [ratio.value for ratio in ratios] == pytest.approx([1, 1, 1])
    assert all(ratio.low == pytest.approx(1) == ratio.high for ratio in ratios)


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of seeds whose error rates differ by 5 %: 95 % of the intervals, within what chance does."""
    inside = 0
    for number in range(120):
        full = curve([10, 20, 40, 80], noise=0.05, seed=2 * number)
        other = curve([5, 10, 20, 40, 80], speed=1.5, noise=0.05, seed=2 * number + 1)
        ratio = cost_ratios(full, other, Draws(3, WORDS, resamples=400))[2]
        inside += ratio.low <= 1.5 <= ratio.high
    assert inside >= 105  # 114 are due; fewer than 105 of 120 once in 10,000 times
