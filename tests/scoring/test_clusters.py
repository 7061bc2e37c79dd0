"""Intervals over speakers and seeds against the enumeration of all draws, and known cases."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import t

from asrprune.scoring.bootstrap import paired_difference
from asrprune.scoring.clusters import difference_of, rate_of


def all_draws(errors, words):
    """The rates of all equally likely draws of seeds and speakers, deviations of seeds widened."""
    seeds, speakers = errors.shape
    mean = errors.mean(axis=0)
    if seeds > 1:
        errors = mean + (errors - mean) * (seeds / (seeds - 1)) ** 0.5
    rates = []
    for some_seeds in product(range(seeds), repeat=seeds):
        for some in product(range(speakers), repeat=speakers):
            wrong = sum(errors[r, s] for r in some_seeds for s in some)
            rates.append(wrong / (seeds * sum(words[s] for s in some)))
    return np.array(rates)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_equals_the_enumeration_of_all_draws(seeds):
    generator = np.random.default_rng(seeds)
    words = np.array([40, 25, 60, 10])
    errors = generator.integers(0, 12, (seeds, 4))
    others = generator.integers(0, 12, (seeds, 4))
    rates = all_draws(errors - others.astype(float), words)
    by_seed = (errors - others).sum(axis=1) / words.sum()
    share = by_seed.var(ddof=1) / seeds / rates.var() if seeds > 1 else 0
    freedom = 1 / (share**2 / max(seeds - 1, 1) + (1 - share) ** 2 / 3)
    quantile = t.ppf(0.975, freedom)
    found = difference_of(errors, others, words)
    assert found.value == pytest.approx((errors.sum() - others.sum()) / seeds / words.sum())
    assert found.error == pytest.approx(rates.std(), rel=0.02)
    wanted = found.value + quantile / 1.96 * (np.percentile(rates, [2.5, 97.5]) - found.value)
    assert found[1:3] == pytest.approx(tuple(wanted), abs=0.03 * np.ptp(rates))
    assert found.could_show == pytest.approx(
        (quantile + t.ppf(0.8, freedom)) * rates.std(), rel=0.03
    )


def test_of_one_seed_speakers_are_drawn_like_utterances():
    generator = np.random.default_rng(0)
    words = generator.integers(50, 300, 40)
    errors, others = generator.binomial(words, 0.1), generator.binomial(words, 0.12)
    found = difference_of(errors[None], others[None], words)
    assert found[:3] == pytest.approx(paired_difference(errors, others, words), abs=5e-4)


def test_of_one_speaker_the_error_is_that_of_a_mean_over_seeds():
    errors = np.array([[10.0], [14.0], [21.0], [9.0]])
    found = rate_of(errors, np.array([100]), resamples=200_000)
    rates = errors[:, 0] / 100
    assert found.error == pytest.approx(rates.std(ddof=1) / 2, rel=0.01)


def test_what_is_common_to_both_sides_cancels():
    generator = np.random.default_rng(1)
    words = np.full(30, 100)
    hard = generator.integers(0, 60, 30)
    errors = hard + generator.integers(0, 3, (3, 30))
    assert difference_of(errors, errors, words) == (0, 0, 0, 0, 0)
    assert difference_of(errors + 2, errors, words)[:3] == pytest.approx((0.02, 0.02, 0.02))
    pair = difference_of(errors, hard + generator.integers(0, 3, (3, 30)), words)
    assert pair.error < rate_of(errors, words).error / 5


@pytest.mark.parametrize("seeds, of_seeds, of_speakers", [(3, 6, 0.5), (3, 2, 10), (1, 0, 10)])
def test_intervals_hold_what_they_should(seeds, of_seeds, of_speakers):
    """Of differences without effect 5 % lie outside, or a few more, also of three seeds."""
    generator = np.random.default_rng(2)
    words, outside = np.full(40, 500.0), 0
    for _ in range(300):
        lucky = generator.normal(0, of_seeds, (seeds, 1))  # a training is so for all speakers
        speakers = generator.normal(0, of_speakers, 40)
        errors = lucky + speakers + generator.normal(0, 1, (seeds, 40))
        found = rate_of(errors, words, resamples=500)
        outside += not found.low <= 0 <= found.high
    assert outside / 300 < 0.1


def test_k_intervals_together_hold_what_one_does():
    """At 1 - 0.05/k each, k of them are all right nearly as often as one of 95 % (Bonferroni)."""
    generator = np.random.default_rng(3)
    words, claims = np.full(40, 500.0), 5
    outside = {0.95: 0, 1 - 0.05 / claims: 0}
    for _ in range(150):
        lucky = generator.normal(0, 3, (claims, 3, 1))
        errors = (
            lucky
            + generator.normal(0, 5, (claims, 1, 40))
            + generator.normal(0, 1, (claims, 3, 40))
        )
        for coverage in outside:
            found = [rate_of(one, words, 1000, coverage) for one in errors]
            outside[coverage] += any(one.low > 0 or one.high < 0 for one in found)
    single, corrected = (count / 150 for count in outside.values())
    assert single > 0.2 and corrected < 0.12


def test_draws_are_the_same_each_time():
    errors = np.arange(12).reshape(3, 4)
    assert rate_of(errors, np.full(4, 20)) == rate_of(errors, np.full(4, 20))


def test_speakers_without_words():
    found = rate_of(np.array([[2, 0, 1]]), np.array([10, 0, 5]))
    assert found.value == pytest.approx(0.2) and np.isfinite(found).all()
