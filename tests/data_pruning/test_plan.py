"""Laws of plans: budgets, strata, phases, weights, purity."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import (
    DYNAMIC_POLICIES,
    STATIC_POLICIES,
    DataPruningOptions,
    TimeDroppingOptions,
)
from asrprune.data_pruning.phases import ANNEAL, PRUNED, WARMUP, cycle_phase, phases
from asrprune.data_pruning.plan import make_plan
from asrprune.data_pruning.policies import POLICIES
from tests.data_pruning.plan_cases import (
    FIXED,
    SEEDS,
    SHARES,
    STRATA,
    STRATIFIED,
    UNITS,
    cost_of,
    first_by,
    kept,
    law,
    plan_of,
    random_case,
    scored,
    strata_of,
)


@law
@given(st.sampled_from(FIXED), SEEDS, st.integers(25, 80), SHARES, UNITS, STRATA)
def test_fixed_budgets_are_met(policy, seed, count, keep, unit, strata):
    """To half a cut, however many scores are unknown."""
    index, scores = random_case(seed, count)
    rng = np.random.default_rng(seed)
    scores.worse_sum[:] = rng.random(count)
    scores.count[rng.random(count) < 0.1] = 0
    scores.count[0] = 1
    cost = cost_of(index, unit)
    plan = plan_of(index, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata)
    off = float(cost[plan.keep].sum()) - keep * float(cost.sum())
    assert abs(off) <= float(cost.max()) / 2 + 1e-6
    assert not plan.report["notes"] and plan.weights is None
    assert plan.report["cuts"] == pytest.approx(len(kept(plan)) / count)
    seconds = float(index.duration[plan.keep].sum() / index.duration.sum())
    assert plan.report["seconds"] == pytest.approx(seconds, rel=1e-5)


def long_is_hard(seed: int, count: int = 200):
    """An index, and scores that grow with the duration, as those of a sum over frames do."""
    index, _ = random_case(seed, count)
    rng = np.random.default_rng(seed)
    scores = scored(*(index.duration * rng.lognormal(0, 0.2, count) for _ in range(2)))
    scores.worse_sum[:] = index.duration
    return index, scores


@law
@given(st.sampled_from(STRATIFIED), SEEDS, SHARES, UNITS, st.sampled_from([2, 4, 10]))
def test_strata_meet_their_budgets(policy, seed, keep, unit, strata):
    """Each to within a cut, so that no length is preferred though the long ones are hard."""
    index, scores = long_is_hard(seed)
    plan = plan_of(index, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata)
    cost = cost_of(index, unit)
    for part in strata_of(index, strata):
        off = float(cost[part][plan.keep[part]].sum()) - keep * float(cost[part].sum())
        assert abs(off) <= float(cost[part].max())


@pytest.mark.parametrize("policy", ["longest", "shortest"])
def test_rules_of_length_know_no_strata(policy):
    index, scores = long_is_hard(0)
    plans = [plan_of(index, scores, policy=policy, keep=0.3, strata=n) for n in (0, 10)]
    assert kept(plans[0]) == kept(plans[1])
    sign = -1 if policy == "longest" else 1
    assert kept(plans[1]) == first_by(sign * index.duration, 60)


# In which direction a policy ranks, and which share of what is dropped comes before its window.
WINDOWS = [
    ("easy", {}, 0.0),
    ("static_easy", {}, 0.0),
    ("hard", {}, 1.0),
    ("static_hard", {}, 1.0),
    ("middle", {}, 0.5),
    ("static_middle", {}, 0.5),
    *(("easy2hard", {"mode": "window"}, progress) for progress in (0.0, 0.3, 1.0)),
]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(WINDOWS), SEEDS, SHARES, UNITS, st.sampled_from([0, 4, 10]))
@example(("easy2hard", {"mode": "window"}, 1.0), 127, 0.7, "seconds", 4)
def test_a_window_is_inside_of_each_stratum(window, seed, keep, unit, strata):
    """The cuts that are kept of a stratum are neighbours in rank, and begin where they should."""
    policy, options, share = window
    index, scores = long_is_hard(seed)
    plan = plan_of(
        index, scores, seed, 1 + round(10 * share), 12, policy=policy, keep=keep, unit=unit,
        strata=strata, policy_options=options,
    )  # fmt: skip
    cost = cost_of(index, unit)
    for part in strata_of(index, strata):
        order = sorted(part, key=lambda cut: (float(scores.typical[cut]), cut))
        places = np.flatnonzero(plan.keep[order])
        assert len(places) and len(places) == places[-1] - places[0] + 1
        below = float(cost[order[: places[0]]].sum())
        due = share * (1 - keep) * float(cost[part].sum())
        assert abs(below - due) <= float(cost[part].max())
        if share in (0, 1):
            assert plan.keep[order[-int(share)]]  # the easiest, or the hardest


@law
@given(st.sampled_from(DYNAMIC_POLICIES + STATIC_POLICIES), SEEDS)
def test_plans_are_pure(policy, seed):
    """The same arguments give the same bits, and are left as they were."""
    index, scores = random_case(seed, 60)
    scores.worse_sum[:] = np.arange(60)
    history = History(60)
    history.age[:] = np.arange(60) % 7
    options = {"policy": policy, "keep": 0.6, "strata": 4, "max_age": 5, "rescale": True}
    before = [scores.state_dict(), history.state_dict()]
    plans = [plan_of(index, scores, seed, history=history, **options) for _ in range(2)]
    assert plans[0].digest == plans[1].digest
    assert np.array_equal(plans[0].keep, plans[1].keep)
    for old, new in zip(before, [scores.state_dict(), history.state_dict()], strict=True):
        assert all(np.array_equal(old[name], new[name]) for name in old)
    again, _ = random_case(seed, 60)
    assert plan_of(again, scores, seed, history=history, **options).digest == plans[0].digest


def test_digest_sees_a_bit():
    index, scores = random_case(0, 50)
    plan = plan_of(index, scores, policy="infobatch", keep=0.5)
    digests = {plan.digest}
    plan.keep[7] ^= True
    digests.add(plan.digest)
    plan.weights[3] += 1
    digests.add(plan.digest)
    plan.cycle += 1
    assert len(digests | {plan.digest}) == 4


def test_copies_share_a_score():
    """Of 10 utterances in 3 copies each, easy keeps all copies of the easiest 5."""
    utterance = np.tile(np.arange(10), 3)
    ids = np.arange(10, dtype=np.uint64)
    index = CutIndex(np.arange(30, dtype=np.uint64), np.ones(30), utterance, ids)
    scores = scored(np.where(np.arange(10) == 9, np.nan, 10.0 - np.arange(10)))
    assert kept(plan_of(index, scores, policy="easy", keep=0.5)) == {
        cut for cut in range(30) if utterance[cut] >= 5
    }
    draws = plan_of(index, scores, policy="random", keep=0.5).keep.reshape(3, 10)
    assert (draws.any(0) & ~draws.all(0)).any()


def test_report_counts_turnover_and_what_was_never_visited():
    index, scores = random_case(0, 10, equal=True)
    history = History(10)
    history.advance(np.arange(10) < 6)
    scores.typical[:] = np.arange(10)
    report = plan_of(index, scores, policy="hard", keep=0.5, history=history).report
    assert (report["turnover"], report["never_visited"]) == (0.8, 0.0)
    report = plan_of(index, scores, policy="easy", keep=0.5, history=history).report
    assert (report["turnover"], report["never_visited"]) == (0.0, 0.4)
    assert (report["cuts"], report["seconds"], report["asked"]) == (0.5, 0.5, 0.5)


def test_known_plan():
    """The same on every machine: draws are keyed by seed and cycle, not by a hash or a clock."""
    index, scores = random_case(1, 40, equal=True)
    plan = plan_of(index, scores, seed=3, policy="random", keep=0.25)
    assert kept(plan) == KNOWN


KNOWN = {2, 4, 6, 15, 17, 24, 26, 29, 33, 38}


def test_phases():
    options = DataPruningOptions(policy="random", keep=0.5, warmup_cycles=2, anneal=0.25)
    found = [cycle_phase(options, cycle, 12) for cycle in range(12)]
    assert found == [WARMUP] * 2 + [PRUNED] * 7 + [ANNEAL] * 3
    index, scores = random_case(0, 30)
    for cycle, phase in enumerate(found):
        plan = make_plan(index, scores, options, 1, cycle, 12, History(30))
        assert plan.phase == phase == plan.report["phase"]
        assert plan.keep.all() == (phase != PRUNED)
        assert plan.report["asked"] == (0.5 if phase == PRUNED else 1.0)
        assert plan.weights is None
    options.anneal = 0.0
    assert cycle_phase(options, 11, 12) == PRUNED


@pytest.mark.parametrize(
    "epochs, cycle, expected",
    [
        (4, 1, "wppa"),  # 0.125 of 4 cycles, rounded up from a half
        (3, 1, "wpp"),
        (12, 1, "w" + 9 * "p" + "aa"),
        (9, 2, "wwppppppa"),  # 5 cycles, the last one half
        (1, 1, "w"),
    ],
)
def test_phases_of_the_epochs(epochs, cycle, expected):
    options = DataPruningOptions(policy="random", keep=0.5, cycle=cycle)
    assert "".join(phase[0] for phase in phases(options, epochs)) == expected


@pytest.mark.parametrize(
    "start, end, expected",
    [
        (0.0, 1.0, ".ddddddd.."),  # 1 cycle of warm-up, 2 at the end on everything
        (0.3, 0.7, "...dddd..."),
        (0.31, 0.69, "....dd...."),  # only cycles that lie inside as a whole
        (0.3, 0.95, "...ddddd.."),
        (0.45, 0.55, ".........."),
    ],
)
def test_time_is_dropped_between_two_shares_of_the_training(start, end, expected):
    time = TimeDroppingOptions("chunk", start=start, end=end)
    options = DataPruningOptions(policy="random", keep=0.5, anneal=0.2, time=time)
    index, scores = random_case(0, 30)
    plans = [make_plan(index, scores, options, 1, cycle, 10, History(30)) for cycle in range(10)]
    assert "".join(".d"[plan.drops_time] for plan in plans) == expected


def test_keep_of_one_keeps_all():
    index, scores = random_case(0, 30)
    for policy in POLICIES:
        plan = plan_of(index, scores, policy=policy, keep=1.0, rescale=True)
        assert plan.keep.all() and plan.weights is None


@pytest.mark.parametrize("policy", STATIC_POLICIES)
def test_static_policies_choose_once(policy):
    index, scores = random_case(0, 60)
    scores.worse_sum[:] = np.arange(60)
    history = History(60)
    first = plan_of(index, scores, policy=policy, keep=0.5, max_age=5, history=history)
    assert first.freeze
    history.advance(first.keep, first.freeze)
    restored = History(60)
    restored.load_state_dict(history.state_dict())
    scores.last[:] = scores.last[::-1].copy()
    for cycle in range(2, 20):
        plan = plan_of(
            index, scores, cycle=cycle, policy=policy, keep=0.5, max_age=5, history=restored
        )
        assert np.array_equal(plan.keep, first.keep) and not plan.freeze
        restored.advance(plan.keep, plan.freeze)
    last = plan_of(index, scores, cycle=99, policy=policy, keep=0.5, anneal=0.1, history=restored)
    assert last.keep.all()


def test_history():
    history = History(3)
    for keep in ([1, 0, 0], [1, 0, 1], [0, 0, 1]):
        history.advance(np.array(keep, bool))
    assert history.age.tolist() == [1, 3, 0]
    assert history.visits.tolist() == [2, 0, 2]
    history.age[1] = history.visits[2] = 65535
    history.advance(np.array([False, False, True]))
    assert (history.age[1], history.visits[2]) == (65535, 65535)
    other = History(3)
    other.load_state_dict(history.state_dict())
    assert np.array_equal(other.age, history.age) and other.frozen is None
    with pytest.raises(UserError, match="of 3 cuts, and the training manifest has 4"):
        History(4).load_state_dict(history.state_dict())


@law
@given(st.sampled_from(FIXED), SEEDS, SHARES, UNITS, STRATA)
def test_rescaling_restores_the_number_of_cuts(policy, seed, keep, unit, strata):
    """In each stratum: equal weights, whose sum is the number of its cuts."""
    index, scores = long_is_hard(seed, 100)
    plan = plan_of(
        index, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata, rescale=True
    )
    assert not plan.weights[~plan.keep].any()
    for part in strata_of(index, strata if policy in STRATIFIED else 0):
        mine = part[plan.keep[part]]
        assert np.allclose(plan.weights[mine], len(part) / max(len(mine), 1))
