"""Schedules: their ends, their continuity, and progress over changed numbers of epochs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrprune.training.options import OptimizerOptions
from asrprune.training.schedule import Progress, loss_weights, rate_factor
from asrprune.transducer.options import LossOptions


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@given(warmup=st.floats(0, 0.9), final=st.floats(0, 1))
def test_rate_rises_then_never_rises_again(schedule, warmup, final):
    options = OptimizerOptions(schedule=schedule, warmup=warmup, final_lr=final)
    factors = [rate_factor(i / 200, options) for i in range(201)]
    top = next(i for i in range(201) if i / 200 >= warmup)
    assert all(a <= b + 1e-12 for a, b in zip(factors[:top], factors[1:top], strict=False))
    assert all(a >= b - 1e-12 for a, b in zip(factors[top:], factors[top + 1 :], strict=False))
    assert factors[-1] == pytest.approx(1 if schedule == "constant" else final)
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)


def test_rate_is_at_its_peak_when_warmup_ends():
    assert rate_factor(0.25, OptimizerOptions(warmup=0.25)) == 1
    assert rate_factor(0.0, OptimizerOptions(warmup=0.25)) == 0


def test_loss_weights_go_from_the_first_to_the_last():
    options = LossOptions(warmup=0.2, simple_scale=0.5)
    assert loss_weights(0.0, options) == pytest.approx((1.0, 0.1))
    assert loss_weights(0.1, options) == pytest.approx((0.75, 0.55))
    assert loss_weights(0.2, options) == loss_weights(1.0, options) == pytest.approx((0.5, 1.0))
    assert loss_weights(0.0, LossOptions(warmup=0.0)) == pytest.approx((0.5, 1.0))


@given(st.integers(1, 50), st.floats(0, 0.99), st.integers(1, 50))
def test_more_or_fewer_epochs_continue_without_a_jump(epochs, share, others):
    elapsed = share * epochs
    before = Progress(epochs)
    after = before.with_epochs(others, elapsed)
    if elapsed < others:
        assert after.at(elapsed) == pytest.approx(before.at(elapsed))
    assert after.at(others) == 1.0
    steps = [after.at(elapsed + (others - elapsed) * i / 10) for i in range(11)]
    assert all(a <= b + 1e-9 for a, b in zip(steps, steps[1:], strict=False))


def test_a_finished_run_that_goes_on_counts_anew():
    assert Progress(10).with_epochs(20, 10.0).at(10.0) == pytest.approx(0.5)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["train", "epochs", "restart", "save"]), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@given(st.integers(1, 20), CHANGES)
def test_the_furthest_progress_never_goes_back(epochs, changes):
    """Whatever is changed on the way: epochs, the number of ranks, both, after the end too."""
    progress, elapsed, seen = Progress(epochs), 0.0, [0.0]
    for what, share in changes:
        if what == "train":
            elapsed += share * max(progress.epochs - elapsed, 0)
            seen.append(progress.reach(elapsed))
            assert seen[-1] >= progress.at(elapsed)
        elif what == "epochs":
            progress = progress.with_epochs(1 + round(30 * share), elapsed)
        elif what == "restart":  # the batches are others, so the epoch begins again
            progress = progress.restarted(elapsed)
            elapsed = float(math.ceil(elapsed) - 1) if elapsed else 0.0
        else:
            progress = Progress(**progress.state_dict())
        seen.append(progress.reach(elapsed))
    assert seen == sorted(seen)


def test_a_finished_run_stays_at_its_end():
    longer = Progress(10).with_epochs(20, 10.0)
    assert longer.at(12.0) == pytest.approx(0.6) and longer.reach(12.0) == 1.0
    again = Progress(**longer.state_dict()).with_epochs(30, 15.0).restarted(15.0)
    assert again.at(15.0) == pytest.approx(0.75) and again.reach(14.0) == 1.0
