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


SHARES = st.lists(st.floats(0.1, 1.0), min_size=1, max_size=30)  # of the audio, epoch by epoch


@given(SHARES, st.floats(0, 0.99), SHARES)
def test_more_or_fewer_epochs_continue_without_a_jump(shares, place, others):
    elapsed = place * len(shares)
    before = Progress(shares)
    after = before.with_shares(others, elapsed)
    if elapsed < len(others):
        assert after.at(elapsed) == pytest.approx(before.at(elapsed))
    assert after.at(len(others)) == 1.0
    steps = [after.at(elapsed + (len(others) - elapsed) * i / 10) for i in range(11)]
    assert all(a <= b + 1e-9 for a, b in zip(steps, steps[1:], strict=False))


def test_a_finished_run_that_goes_on_counts_anew():
    assert Progress([1.0] * 10).with_shares([1.0] * 20, 10.0).at(10.0) == pytest.approx(0.5)


def test_equal_audio_has_equal_rates():
    """After as much audio, progress is that of a training on all data, which has fewer epochs."""
    pruned = [1.0] + [0.7] * 10 + [1.0] * 2  # the audio of 10 epochs
    one, other, audio = Progress(pruned), Progress([1.0] * 10), 0.0
    for epoch, share in enumerate(pruned):
        for part in (0.0, 0.25, 0.9):
            assert one.at(epoch + part) == pytest.approx(other.at(audio + part * share))
        audio += share
    assert one.at(13.0) == other.at(10.0) == 1.0


CHANGES = st.lists(
    st.tuples(st.sampled_from(["train", "epochs", "restart", "save"]), st.floats(0, 1)),
    min_size=1,
    max_size=12,
)


@given(SHARES, CHANGES)
def test_the_furthest_progress_never_goes_back(shares, changes):
    """Whatever is changed on the way: epochs, the number of ranks, both, after the end too."""
    progress, elapsed, seen = Progress(shares), 0.0, [0.0]
    for what, share in changes:
        if what == "train":
            elapsed += share * max(len(progress.shares) - elapsed, 0)
            seen.append(progress.reach(elapsed))
            assert seen[-1] >= progress.at(elapsed)
        elif what == "epochs":
            progress = progress.with_shares([0.5, *[share + 0.1] * round(30 * share)], elapsed)
        elif what == "restart":  # the batches are others, so the epoch begins again
            progress = progress.restarted(elapsed)
            elapsed = float(math.ceil(elapsed) - 1) if elapsed else 0.0
        else:
            progress = Progress(**progress.state_dict())
        seen.append(progress.reach(elapsed))
    assert seen == sorted(seen)


def test_a_finished_run_stays_at_its_end():
    longer = Progress([1.0] * 10).with_shares([1.0] * 20, 10.0)
    assert longer.at(12.0) == pytest.approx(0.6) and longer.reach(12.0) == 1.0
    again = Progress(**longer.state_dict()).with_shares([1.0] * 30, 15.0).restarted(15.0)
    assert again.at(15.0) == pytest.approx(0.75) and again.reach(14.0) == 1.0
