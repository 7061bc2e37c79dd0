"""Bootstrap intervals against full enumeration, kaldialign and cases known beforehand."""

from itertools import product

import kaldialign
import numpy as np
import pytest

from asrprune.scoring.bootstrap import paired_difference, wer_interval


def random_set(seed=0, size=400):
    generator = np.random.default_rng(seed)
    words = generator.integers(1, 30, size)
    return generator.binomial(words, 0.1), generator.binomial(words, 0.12), words


def enumerated(errors, words):
    """The middle 95 % over all equally likely draws of as many as there are."""
    size = len(words)
    rates = [
        sum(errors[i] for i in draw) / sum(words[i] for i in draw)
        for draw in product(range(size), repeat=size)
    ]
    return np.percentile(rates, [2.5, 97.5], method="nearest")


def test_equals_the_enumeration_of_all_draws():
    errors, words = [3, 0, 1, 2, 0, 5], [10, 4, 7, 12, 9, 6]
    value, low, high = wer_interval(errors, words)
    assert value == sum(errors) / sum(words)
    assert [low, high] == pytest.approx(enumerated(errors, words), abs=0.01)
    other = [1, 1, 0, 4, 1, 2]
    value, low, high = paired_difference(errors, other, words)
    assert value == pytest.approx((sum(errors) - sum(other)) / sum(words))
    assert [low, high] == pytest.approx(enumerated(np.subtract(errors, other), words), abs=0.01)


def test_agrees_with_kaldialign():
    errors, _, words = random_set()
    refs = [["a"] * n for n in words]
    hyps = [["b"] * e + ["a"] * (n - e) for e, n in zip(errors, words, strict=True)]
    theirs = kaldialign.bootstrap_wer_ci(refs, hyps)
    ours = wer_interval(errors, words)
    # theirs is symmetric, ours holds percentiles: both nearly normal on 400 utterances
    assert ours.value == pytest.approx(theirs["wer"], abs=5e-4)
    assert ours.low == pytest.approx(theirs["ci95min"], abs=1.5e-3)
    assert ours.high == pytest.approx(theirs["ci95max"], abs=1.5e-3)


def test_draws_are_the_same_each_time():
    errors, _, words = random_set()
    assert wer_interval(errors, words) == wer_interval(errors, words)


def test_the_draws_come_in_pieces_without_a_trace(monkeypatch):
    errors, _, words = random_set(size=50)
    monkeypatch.setattr("asrprune.scoring.bootstrap.RESAMPLES", 1000)
    whole = wer_interval(errors, words)
    monkeypatch.setattr("asrprune.scoring.bootstrap.DRAWS_AT_ONCE", 350)
    assert wer_interval(errors, words) == whole


def test_a_constant_has_no_width():
    _, _, words = random_set()
    assert wer_interval(words, words) == (1, 1, 1)
    errors, worse, _ = random_set()
    assert paired_difference(errors, errors, words) == (0, 0, 0)
    found = paired_difference(errors + words, errors, words)
    assert found == pytest.approx((1, 1, 1))


def test_pairing_is_narrower_than_two_sets():
    errors, _, words = random_set(size=1000)
    better = np.maximum(errors - (np.arange(1000) % 5 == 0), 0)
    found = paired_difference(better, errors, words)
    assert found.low < found.value < found.high < 0
    one = wer_interval(errors, words)
    assert found.high - found.low < (one.high - one.low) / 2
    swapped = paired_difference(errors, better, words)
    assert swapped == pytest.approx((-found.value, -found.high, -found.low), abs=1e-4)


def test_sets_without_words():
    assert wer_interval([0, 0], [0, 0]) == (0, 0, 0)
    assert wer_interval([1, 2], [0, 0]) == (np.inf, np.inf, np.inf)
    low, high = wer_interval([1, 0], [0, 4])[1:]
    assert (low, high) == (0, np.inf)
    assert paired_difference([1, 0], [1, 0], [0, 4]) == (0, 0, 0)
    with pytest.raises(ValueError, match="no utterances"):
        wer_interval([], [])
