"""Draws are functions of their key: the same anywhere, others for another key."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asrprune.base.randomness import (
    key_to_seed,
    keyed_generator,
    keyed_global_generators,
    keyed_random,
    keyed_uniforms,
)

KEYS = st.lists(st.integers() | st.text(max_size=5), max_size=3).map(tuple)


def global_states() -> tuple:
    numpy_state = np.random.get_state()
    return (
        random.getstate(),
        numpy_state[1].tolist(),
        numpy_state[2:],
        torch.get_rng_state().tolist(),
    )


def draws() -> tuple[float, ...]:
    return random.random(), np.random.rand(), torch.rand(1).item()


@given(KEYS, KEYS)
def test_keys_are_told_apart(one, other):
    assert (key_to_seed(*one) == key_to_seed(*other)) == (repr(one) == repr(other))
    assert 0 <= key_to_seed(*one) < 2**63


def test_kinds_of_keys_are_told_apart():
    seeds = [key_to_seed(*key) for key in [(1, 2), (12,), ("1", 2), ("12",), (2, 1), ("1", "2")]]
    assert len(set(seeds)) == len(seeds)


def test_another_process_draws_the_same():
    """Python's own hash would not: it is salted in each process."""
    code = "from asrprune.base.randomness import key_to_seed; print(key_to_seed('a', 3, 'cut-1'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert int(done.stdout) == key_to_seed("a", 3, "cut-1"), done.stderr


def test_generators_follow_their_key():
    assert keyed_random("a", 1).random() == keyed_random("a", 1).random()
    assert keyed_random("a", 1).random() != keyed_random("a", 2).random()
    one, same, other = (torch.rand(3, generator=keyed_generator("a", n)) for n in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_global_generators_are_lent_and_put_back():
    before = global_states()
    with keyed_global_generators("k", 1):
        first = draws()
    assert global_states() == before
    draws()
    with keyed_global_generators("k", 1):
        assert draws() == first
        with keyed_global_generators("k", 2):
            inner = draws()
        after_inner = draws()
    assert all(a != b for a, b in zip(inner, first, strict=True))
    with keyed_global_generators("k", 1):
        draws()
        assert draws() == after_inner
    before = global_states()
    with pytest.raises(ValueError), keyed_global_generators("k", 1):
        draws()
        raise ValueError
    assert global_states() == before


# Uniform numbers of many items


def hashes(count: int) -> np.ndarray:
    """Hashes of ids that differ by little."""
    return np.array([key_to_seed(f"cut-{number:06d}") for number in range(count)], np.uint64)


def squares(first: np.ndarray, second: np.ndarray, bins: int = 16) -> float:
    """Chi-square of pairs in a grid of squares, in deviations of its distribution."""
    counts, *_ = np.histogram2d(first, second, bins=bins, range=[[0, 1], [0, 1]])
    expected = len(first) / bins**2
    statistic = float(((counts - expected) ** 2).sum() / expected)
    freedom = bins**2 - 1
    return (statistic - freedom) / (2 * freedom) ** 0.5


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), KEYS, st.integers(1, 8))
def test_one_item_and_many_draw_the_same(items, key, count):
    many = keyed_uniforms(np.array(items, np.uint64), *key, count=count)
    assert len(many) == count and all(row.dtype == np.float64 for row in many)
    for at, item in enumerate(items):
        one = keyed_uniforms(item, *key, count=count)
        assert one == [row[at] for row in many]
        assert all(0 <= number < 1 for number in one)
    fewer = keyed_uniforms(np.array(items[::-1], np.uint64), *key, count=count)
    assert all(np.array_equal(row[::-1], other) for row, other in zip(many, fewer, strict=True))


@pytest.mark.parametrize("items", ["ids", "counters"])
@pytest.mark.parametrize("other", [("t", 1, 3), ("t", 2, 2), ("t", 0, 2), ("u", 1, 2)], ids=str)
def test_draws_are_uniform_and_independent(items, other):
    """Of the two draws, of cycles, of seeds and of uses; even where the hashes are counters."""
    count = 40_000
    drawn = hashes(count) if items == "ids" else np.arange(count, dtype=np.uint64)
    first, second = keyed_uniforms(drawn, "t", 1, 2)
    third, fourth = keyed_uniforms(drawn, *other)
    for pair in ((first, second), (first, third), (second, fourth), (second, third)):
        assert abs(squares(*pair)) < 5
    assert abs(squares(first[:-1], first[1:])) < 5  # neighbours
    assert abs(squares((first + third) % 1, second)) < 5  # three at once
    assert abs(first.mean() - 0.5) < 5 * (1 / 12 / count) ** 0.5


def test_one_item_draws_anew_in_each_cycle():
    drawn = np.array([keyed_uniforms(77, "t", 0, cycle) for cycle in range(20_000)])
    assert abs(squares(drawn[:, 0], drawn[:, 1])) < 5
    assert abs(squares(drawn[:-1, 0], drawn[1:, 0])) < 5
