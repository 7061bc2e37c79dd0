"""Plans of time dropping: exact shares, feasible lengths, and draws that the key alone decides."""

import os
import subprocess
import sys
from collections import Counter
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data_pruning.drop_plan import VARIANTS, count_pieces, lengths_left, plan_drop
from asrprune.data_pruning.ids import hash_id

laws = settings(deadline=None, derandomize=True)
variants = st.sampled_from(VARIANTS)
drop_ratios = st.floats(0, 1, exclude_max=True)
keys = st.tuples(st.integers(0, 5), st.integers(0, 50), st.text(max_size=8))


def chunks_gone(keep: torch.Tensor, chunk: int) -> set[int]:
    """How many chunks may have gone, by all grids around the sequence on which whole ones did."""
    grids = (keep.roll(-begin).split(chunk) for begin in range(len(keep)))
    return {
        sum(not piece[0] for piece in pieces)
        for pieces in grids
        if all((piece == piece[0]).all() for piece in pieces)
    }


# The draw


@laws
@given(st.integers(0, 400), drop_ratios, keys, variants, st.integers(1, 90), st.integers(-2, 450))
@example(20, 0.999, (0, 0, ""), "chunk", 20, 1)
@example(41, 0.999, (0, 0, ""), "chunk", 20, 1)
def test_lengths_are_foretold_and_feasible(length, drop_ratio, key, variant, chunk, least):
    plan = plan_drop(length, drop_ratio, key, variant=variant, chunk=chunk, least=least)
    kept = int(plan.keep.sum())
    assert plan.keep.shape == (length,) and plan.keep.dtype == torch.bool
    hashes = np.array([hash_id(key[-1])], np.uint64)
    foretold = lengths_left(
        np.array([length]), drop_ratio, key[:-1], hashes, variant=variant, chunk=chunk, least=least
    )
    assert kept == foretold.item()
    assert kept >= min(length, max(1, least))
    free = plan_drop(length, drop_ratio, key, variant=variant, chunk=chunk)
    size = chunk if variant == "chunk" else 1
    most = max(0, length - max(1, least)) // size  # that may always go, whichever they are
    if plan.clamped:
        assert most < drop_ratio * ceil(length / size)
        assert most in chunks_gone(plan.keep, size)
    elif not free.clamped:
        assert torch.equal(plan.keep, free.keep)


@laws
@given(st.integers(1, 400), drop_ratios, keys, st.integers(1, 90))
def test_whole_chunks_go_as_many_as_asked(length, drop_ratio, key, chunk):
    keep, clamped = plan_drop(length, drop_ratio, key, variant="chunk", chunk=chunk)
    asked, most = drop_ratio * ceil(length / chunk), (length - 1) // min(chunk, length)
    gone = chunks_gone(keep, chunk)
    if clamped:  # a frame must stay: all whole chunks that may go are gone
        assert most in gone and most < asked + 1
    else:
        assert any(abs(number - asked) < 1 for number in gone)


@laws
@given(st.integers(1, 400), drop_ratios, keys)
def test_points_go_as_many_as_asked(length, drop_ratio, key):
    keep, clamped = plan_drop(length, drop_ratio, key, variant="point")
    gone = int((~keep).sum())
    assert (
        (gone == length - 1 < drop_ratio * length + 1)
        if clamped
        else abs(gone - drop_ratio * length) < 1
    )
    # a piece of one frame is a point
    assert torch.equal(keep, plan_drop(length, drop_ratio, key, chunk=1).keep)


@pytest.mark.parametrize("twentieths", range(0, 20, 3))
@pytest.mark.parametrize("length, size", [(100, 20), (111, 20), (59, 1), (95, 7), (23, 22)])
def test_expected_share_is_rho_exactly(length, size, twentieths):
    """The mean over both uniform numbers, on a grid finer than every step of the outcome."""
    drop_ratio, units = twentieths / 20, ceil(length / size)
    outcomes = [
        count_pieces(
            length, drop_ratio, "chunk", size, 1, (coin + 0.5) / 20, (position + 0.5) / units
        )
        for coin in range(20)
        for position in range(units)
    ]
    share = sum(length - int(outcome.left) for outcome in outcomes) / len(outcomes) / length
    if ceil(round(drop_ratio * units, 9)) * size < length:
        assert share == pytest.approx(drop_ratio, abs=1e-12)
        assert not any(outcome.clamped for outcome in outcomes)
    else:
        assert share < drop_ratio and any(outcome.clamped for outcome in outcomes)


@pytest.mark.parametrize("variant, length", [("chunk", 190), ("point", 190)])
def test_what_is_drawn_has_that_expectation(variant, length):
    """Within 4.5 standard errors, of the deviation that was drawn."""
    hashes = np.array([hash_id(f"cut-{number}") for number in range(4000)], np.uint64)
    left = lengths_left(np.full(4000, length), 0.33, (0, 1), hashes, variant=variant)
    gone = length - torch.from_numpy(left).double()
    assert abs(gone.mean() - 0.33 * length) < 4.5 * gone.std() / len(gone) ** 0.5 + 1e-9


def assert_equally_likely(outcomes: list, number: int) -> None:
    """A chi-square test whose 1e-5 quantile is bounded by Wilson and Hilferty's formula."""
    counts = Counter(outcomes)
    assert len(counts) == number
    expected = len(outcomes) / number
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected
    freedom = number - 1
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.27 * spread**0.5) ** 3


def test_every_set_of_chunks_on_every_grid_is_equally_likely():
    plans = [plan_drop(100, 0.4, (0, i, "a"), chunk=20).keep for i in range(8000)]
    assert_equally_likely([tuple(keep.tolist()) for keep in plans], 10 * 20)  # 2 of 5, 20 grids


def test_every_frame_is_equally_likely_to_go():
    """Those of a last chunk that is shorter, too."""
    plans = torch.stack([plan_drop(47, 0.4, (0, i, "a"), chunk=20).keep for i in range(6000)])
    gone = (~plans).double().mean(0)
    error = (gone.mean() * (1 - gone.mean()) / len(plans)).sqrt()
    assert (gone - gone.mean()).abs().max() < 4.5 * error


def test_clamped_is_said():
    asked = [plan_drop(100, 0.5, (0, i, "a"), chunk=20, least=61) for i in range(50)]
    assert all(plan.clamped and int(plan.keep.sum()) == 80 for plan in asked)
    assert not any(plan_drop(100, 0.4, (0, i, "a"), chunk=20, least=60).clamped for i in range(50))
    keep, clamped = plan_drop(10, 0.5, (0, 0, "a"), variant="point", least=11)
    assert clamped and keep.all()
    assert not plan_drop(10, 0.0, (0, 0, "a"), least=11).clamped  # nothing was asked for
    assert plan_drop(50, 0.999, (0, 0, "a"), chunk=10**12).clamped  # one chunk is all there is


# The key


def test_the_key_alone_decides():
    first = plan_drop(600, 0.3, (1, 2, "a"))
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(plan_drop(600, 0.3, (1, 2, "a")).keep, first.keep)
    assert torch.equal(torch.get_rng_state(), before)
    others = [(1, 2, "b"), (1, 3, "a"), (2, 2, "a"), (2, 1, "a"), (1, 2, "a_sp0.9")]
    plans = {tuple(plan_drop(600, 0.3, key).keep.tolist()) for key in [*others, (1, 2, "a")]}
    assert len(plans) == 6


PROCESS = """
import sys
from asrprune.data_pruning.drop_plan import plan_drop
for variant in ("chunk", "point"):
    for cut in ("a", "b_sp1.1"):
        keep = plan_drop(333, 0.3, (1, 2, cut), variant=variant).keep
        sys.stdout.write("".join("01"[kept] for kept in keep.tolist()) + "\\n")
sys.stdout.write(str("torchaudio" in sys.modules))
"""


def test_another_process_draws_the_same_and_needs_no_torchaudio():
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    here = [
        "".join(
            "01"[kept] for kept in plan_drop(333, 0.3, (1, 2, cut), variant=variant).keep.tolist()
        )
        for variant in ("chunk", "point")
        for cut in ("a", "b_sp1.1")
    ]
    assert done.stdout.split() == [*here, "False"]


# Bad arguments


@pytest.mark.parametrize(
    "options, message",
    [
        ({"drop_ratio": 1.0}, "drop_ratio=1.0: "),
        ({"drop_ratio": -0.1}, "drop_ratio=-0.1: "),
        ({"drop_ratio": float("nan")}, "drop_ratio=nan: "),
        ({"chunk": 0}, "chunk=0: "),
        ({"variant": "chunks"}, "variant=chunks: .*did you mean 'chunk'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        plan_drop(100, options.pop("drop_ratio", 0.3), (0, 0, "a"), **options)
