"""Sparsity over the progress of training."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.weight_pruning.options import ScheduleOptions
from asrprune.weight_pruning.schedule import needs_refresh, sparsity_at

SHARES = st.floats(0, 1)


@st.composite
def schedules(draw):
    start, end = sorted((draw(SHARES), draw(SHARES)))
    initial, final = draw(st.floats(0, 0.99)), draw(st.floats(0, 0.99))
    kind = draw(st.sampled_from(["constant", "linear", "cubic"]))
    options = ScheduleOptions(kind, initial, final, start, end)
    check(options)
    return options


@given(schedules(), st.lists(SHARES, min_size=2))
def test_sparsity_goes_one_way_from_initial_to_final(options, progress):
    values = [sparsity_at(share, options) for share in sorted(progress)]
    if options.final < options.initial:
        values.reverse()
    low, high = sorted((options.initial, options.final))
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values)
    assert all(one <= other + 1e-9 for one, other in zip(values, values[1:], strict=False))
    assert sparsity_at(1.0, options) == options.final
    assert sparsity_at(options.end, options) == options.final
    if options.start:
        assert sparsity_at(0.0, options) == options.initial


@given(schedules(), SHARES)
def test_sparsity_as_in_the_formula(options, progress):
    if options.start <= progress < options.end:
        done = (progress - options.start) / (options.end - options.start)
        gap = options.initial - options.final
        expected = {
            "constant": options.final,
            "linear": options.initial - gap * done,
            "cubic": options.final + gap * (1 - done) ** 3,
        }
        assert sparsity_at(progress, options) == pytest.approx(expected[options.kind], abs=1e-9)


def test_a_cubic_ramp_drops_most_at_first():
    options = ScheduleOptions("cubic", 0.0, 0.8, 0.0, 1.0)
    assert sparsity_at(0.5, options) == pytest.approx(0.7)
    assert sparsity_at(0.5, dataclasses.replace(options, kind="linear")) == pytest.approx(0.4)


def test_masks_are_taken_anew_until_they_are_frozen():
    options = ScheduleOptions(freeze=0.5, refresh_interval=3)
    steps = [step for step in range(20) if needs_refresh(step, step / 20, options)]
    assert steps == [0, 3, 6, 9]
    assert not needs_refresh(0, 0.0, dataclasses.replace(options, freeze=0.0))
    always = dataclasses.replace(options, freeze=1.0)
    assert needs_refresh(18, 0.9, always) and not needs_refresh(21, 1.0, always)


def test_shares_are_in_order():
    with pytest.raises(UserError, match="x.start=0.5: must not come after x.end=0.4"):
        check(ScheduleOptions(start=0.5), "x.")
    check(ScheduleOptions("constant", start=0.5), "x.")
    for bad in ({"final": 1.0}, {"refresh_interval": 0}, {"freeze": 1.1}, {"kind": "square"}):
        with pytest.raises(UserError, match=next(iter(bad))):
            check(ScheduleOptions(**bad), "x.")
