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

from asrprune.randomness import (
    key_to_seed,
    keyed_generator,
    keyed_global_generators,
    keyed_random,
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
    code = "from asrprune.randomness import key_to_seed; print(key_to_seed('a', 3, 'cut-1'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1],
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
