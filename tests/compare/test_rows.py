"""Ratios of times over seeds: their mean, interval, and what they could show."""

import math

import numpy as np
import pytest

from asrprune.compare.rows import ratio_interval


def test_a_ratio_and_its_interval():
    found = ratio_interval([2.0, 8.0], [1.0, 2.0])
    assert found.value == pytest.approx(math.sqrt(8))
    assert found.high / found.value == pytest.approx(found.value / found.low)
    assert ratio_interval([3.0], [2.0]) == (1.5, 0.0, math.inf, math.inf)
    assert ratio_interval([2.0, 4.0], [1.0, 2.0]) == pytest.approx((2.0, 2.0, 2.0, 1.0))


def test_what_a_ratio_could_show_is_found_four_times_out_of_five():
    """The interval leaves out 1 as often, where the truth is that factor away from it."""
    random, sigma, seeds = np.random.default_rng(0), 0.1, 10
    factors = [
        ratio_interval(np.exp(random.normal(0, sigma, seeds)), np.ones(seeds)).could_show
        for _ in range(200)
    ]
    truth = np.exp(np.mean(np.log(factors)))
    logs = random.normal(np.log(truth), sigma, (500, seeds))
    found = np.mean([ratio_interval(np.exp(one), np.ones(seeds)).low > 1 for one in logs])
    assert found == pytest.approx(0.8, abs=0.07)
