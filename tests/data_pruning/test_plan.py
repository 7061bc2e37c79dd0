"""Laws of plans: budgets, floors, ages, unknown scores, phases, weights, purity."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import (
    DYNAMIC_POLICIES,
    PRESETS,
    STATIC_POLICIES,
    DataPruningOptions,
    preset,
)
from asrprune.data_pruning.plan import ANNEAL, PRUNED, WARMUP, check_plan, cycle_phase, make_plan
from asrprune.data_pruning.policies import POLICIES
from asrprune.errors import UserError
from asrprune.options import check
from tests.data_pruning.plan_cases import kept, make_index, plan_of, random_case, scored

FIXED = [name for name, policy in POLICIES.items() if not policy.emergent and name != "full"]
DYNAMIC = [name for name in DYNAMIC_POLICIES if name != "full"]
SEEDS, SHARES = st.integers(0, 10**6), st.sampled_from([0.2, 0.35, 0.5, 0.7, 0.9])
UNITS, STRATA = st.sampled_from(["seconds", "utterances"]), st.sampled_from([0, 4, 10])
law = settings(deadline=None, max_examples=60)


def cost_of(index, unit):
    return index.duration if unit == "seconds" else np.ones(len(index), np.float32)


@law
@given(st.sampled_from(FIXED), SEEDS, st.integers(25, 80), SHARES, UNITS, STRATA, st.booleans())
def test_fixed_budgets_are_met(policy, seed, count, keep, unit, strata, aged):
    """To half a cut, however many are unknown; and with some to be kept for their age, to one."""
    index, scores = random_case(seed, count)
    rng = np.random.default_rng(seed)
    scores.worse_sum[:] = rng.random(count)
    scores.count[rng.random(count) < 0.1] = 0
    scores.count[0] = 1
    history = History(count)
    if aged:
        history.age[:] = rng.integers(0, 9, count)
    cost = cost_of(index, unit)
    options = {"keep": keep, "unit": unit, "strata": strata, "max_age": 5 if aged else 0}
    plan = plan_of(index, scores, seed, policy=policy, history=history, **options)
    off = float(cost[plan.keep].sum()) - keep * float(cost.sum())
    assert abs(off) <= float(cost.max()) * (1 if aged else 0.5) + 1e-6 or plan.report["notes"]
    assert aged or not plan.report["notes"]
    assert plan.weights is None
    assert math.isclose(plan.report["cuts"], plan.keep.mean())
    seconds = float(index.duration[plan.keep].sum() / index.duration.sum())
    assert math.isclose(plan.report["seconds"], seconds, rel_tol=1e-5)


@law
@given(st.sampled_from(FIXED), SEEDS, SHARES, UNITS)
def test_strata_meet_their_budgets(policy, seed, keep, unit):
    """Each to within two cuts, so that no length is preferred."""
    index, scores = random_case(seed, 200)
    scores.worse_sum[:] = np.arange(200)
    if not POLICIES[policy].stratified:
        return
    plan = plan_of(index, scores, seed, policy=policy, keep=keep, unit=unit, strata=10)
    cost = cost_of(index, unit)
    for code in range(10):
        part = index.strata(10) == code
        off = float(cost[part & plan.keep].sum()) - keep * float(cost[part].sum())
        assert abs(off) <= 2 * float(cost[part].max())


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(DYNAMIC), SEEDS, st.integers(25, 60), SHARES, UNITS, STRATA,
       st.integers(1, 6), st.booleans())  # fmt: skip
def test_every_cut_is_visited(policy, seed, count, keep, unit, strata, limit, moving):
    """None is passed over more often than 2 max_age - 1 times in a row, whatever the scores do."""
    if keep < 1 / (limit + 1):
        return
    index, scores = random_case(seed, count)
    rng = np.random.default_rng(seed)
    history = History(count)
    for cycle in range(1, 30):
        plan = plan_of(
            index, scores, seed, cycle, policy=policy, keep=keep, unit=unit, strata=strata,
            max_age=limit, history=history,
        )  # fmt: skip
        history.advance(plan.keep)
        assert history.age.max() <= 2 * limit - 1
        if moving:
            scores.add(np.flatnonzero(plan.keep), rng.lognormal(0, 1, plan.keep.sum()))
            scores.merge(scores.pending())


def test_easy_with_ages_is_not_static():
    """Without them the same cuts train for ever; with them visits are spread, oldest first."""
    index, scores = random_case(5, 1000)
    never = {}
    for limit in (0, 5):
        history, forced = History(1000), []
        for cycle in range(1, 31):
            plan = plan_of(
                index, scores, cycle=cycle, policy="easy", keep=0.7, max_age=limit, strata=10,
                history=history,
            )  # fmt: skip
            assert abs(plan.keep.sum() - 700) <= 1
            forced.append(plan.report["forced"])
            history.advance(plan.keep)
        never[limit] = (history.visits == 0).mean()
    assert never[0] == pytest.approx(0.3) and never[5] == 0
    assert forced[:5] == [0] * 5
    assert 0 < max(forced[5:]) <= 70  # 300 dropped, over 5 cycles, rounded up in 10 strata


def test_older_ones_go_first_ties_by_index():
    index, scores = random_case(0, 100, equal=True)
    history = History(100)
    history.age[10:50] = 5
    history.age[40:44] = 7
    plan = plan_of(index, scores, policy="random", keep=0.5, max_age=5, history=history)
    assert plan.report["forced"] == 11  # (50 + 2) / 5, rounded up
    assert plan.report["deferred"] == 29
    assert plan.keep[40:44].all() and plan.keep[10:17].all()


@law
@given(st.sampled_from(sorted(POLICIES)), SEEDS, st.integers(20, 90), SHARES,
       st.floats(0.05, 1), st.floats(0, 0.4), UNITS, STRATA)  # fmt: skip
def test_no_group_is_under_its_floor(policy, seed, count, keep, floor, other, unit, strata):
    """Languages that differ in difficulty, and speakers; the budget holds where it can."""
    rng = np.random.default_rng(seed)
    language = rng.integers(0, 3, count)
    names = {"language": [f"l{i}" for i in language], "speaker": rng.integers(0, 9, count)}
    names["speaker"] = [f"s{i}" for i in names["speaker"]]
    index = make_index(rng.gamma(3, 3, count), **names)
    scores = scored(*(rng.lognormal(language, 0.3) for _ in range(2)))
    scores.worse_sum[:] = rng.random(count)
    history = History(count)
    history.age[:] = rng.integers(0, 9, count)
    cost = cost_of(index, unit)
    plan = plan_of(
        index, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata, max_age=5,
        floors={"language": floor, "speaker": other}, history=history,
    )  # fmt: skip
    for name, share in (("language", floor), ("speaker", other)):
        codes, groups = index.groups[name]
        for code in range(len(groups)):
            least = share * float(cost[codes == code].sum())
            assert float(cost[(codes == code) & plan.keep].sum()) >= least * (1 - 1e-6)
    emergent = POLICIES[policy].emergent or policy == "full"
    if not emergent and floor + other < keep - 0.25 and not plan.report["notes"]:
        assert abs(float(cost[plan.keep].sum()) - keep * float(cost.sum())) <= float(cost.max())


def test_floors_before_ages_before_budget():
    """20 cuts; speaker a (10 easy ones) has a floor of all, b is due for its age."""
    index = make_index(np.ones(20), speaker=["a"] * 10 + ["b"] * 10)
    scores = scored(np.arange(20) + 1.0)
    history = History(20)
    history.age[10:] = 1

    def chosen(keep, policy, **floors):
        return plan_of(
            index, scores, policy=policy, keep=keep, max_age=1, floors=floors, history=history
        )

    plan = chosen(0.5, "easy")
    assert kept(plan) == set(range(10, 20))  # ages displace what is easy
    plan = chosen(0.5, "easy", speaker=1.0)
    assert kept(plan) == set(range(20))  # a floor of everything keeps all
    assert (
        "kept 1.0000 of the utterances instead of 0.5000: group floors" in plan.report["notes"][0]
    )
    plan = chosen(0.5, "easy", speaker=0.3)
    assert kept(plan) == {0, 1, 2} | set(range(10, 20))  # both, over the budget


def test_floors_displace_what_is_least_wanted():
    index = make_index(np.ones(20), speaker=["a"] * 10 + ["b"] * 10)
    scores = scored(np.arange(20) + 1.0)
    plan = plan_of(index, scores, policy="easy", keep=0.5, floors={"speaker": 0.3})
    assert kept(plan) == set(range(7)) | {10, 11, 12}
    plan = plan_of(index, scores, policy="hard", keep=0.5, floors={"speaker": 0.25})
    assert kept(plan) == {7, 8, 9} | set(range(13, 20))
    assert plan.report["floored"] == 3 and not plan.report["notes"]


def test_floors_of_many_groups():
    """200 speakers of 10 cuts, the last 100 hard: a third of each trains, inside the budget."""
    speakers = np.repeat(np.arange(200), 10)
    index = make_index(np.ones(2000), speaker=[f"{i:03}" for i in speakers])
    scores = scored(np.arange(2000) + 1.0)
    plan = plan_of(index, scores, policy="easy", keep=0.5, floors={"speaker": 0.3})
    per_speaker = plan.keep.reshape(200, 10).sum(1)
    assert (per_speaker[100:] == 3).all() and plan.keep.sum() == 1000
    assert (per_speaker[:50] == 10).all() and per_speaker.min() == 3


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
    scores.last[:] = np.arange(10)
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


@law
@given(st.sampled_from([p for p in DYNAMIC if p != "random"]), SEEDS, st.integers(1, 20))
def test_unknown_scores_come_first(policy, seed, unknown):
    index, scores = random_case(seed, 60)
    values = np.where(np.arange(60) % 2, np.nan, np.inf)
    values[unknown:] = scores.last[unknown:]
    scores = scored(values)
    plan = plan_of(index, scores, seed, policy=policy, keep=0.5)
    assert plan.keep[:unknown].all()
    assert plan.report["unknown"] == unknown
    assert plan.weights is None or (plan.weights[:unknown] == 1).all()


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_all_unknown(policy):
    index, _ = random_case(0, 20)
    scores = scored(np.full(20, np.nan))
    visited = History(20)
    visited.advance(np.ones(20, bool))
    if policy in ("full", "random", "static_random", "longest", "shortest"):
        for history in (None, visited):
            plan = plan_of(index, scores, policy=policy, keep=0.5, history=history)
            assert plan.keep.sum() == (20 if policy == "full" else 10)
        return
    with pytest.raises(UserError, match=f"{policy} needs scores, and all are unknown"):
        plan_of(index, scores, policy=policy, keep=0.5, history=visited)
    # a training that goes on at a later epoch, without the state of the one before
    plan = plan_of(index, scores, policy=policy, keep=0.5, rescale=True)
    assert plan.keep.all() and plan.weights is None and not plan.freeze
    [note] = plan.report["notes"]
    assert note.startswith(f"policy {policy} needs scores, and there are none yet")


def test_phases():
    options = DataPruningOptions(policy="random", keep=0.5, warmup_cycles=2, anneal=0.25)
    phases = [cycle_phase(options, cycle, 12) for cycle in range(12)]
    assert phases == [WARMUP] * 2 + [PRUNED] * 7 + [ANNEAL] * 3
    index, scores = random_case(0, 30)
    for cycle, phase in enumerate(phases):
        plan = make_plan(index, scores, options, 1, cycle, 12, History(30))
        assert plan.phase == phase == plan.report["phase"]
        assert plan.keep.all() == (phase != PRUNED)
        assert plan.weights is None
    options.anneal = 0.0
    assert cycle_phase(options, 11, 12) == PRUNED


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
    index, scores = random_case(seed, 100)
    scores.worse_sum[:] = np.arange(100)
    plan = plan_of(
        index, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata, rescale=True
    )
    assert plan.weights.sum() == pytest.approx(100, rel=1e-4) or strata
    assert (plan.weights[plan.keep] >= 1).all() and not plan.weights[~plan.keep].any()
    if not strata:
        assert np.allclose(plan.weights[plan.keep], 100 / plan.keep.sum())


def test_nothing_left():
    index = make_index(np.ones(10), language=["a"] * 9 + ["b"], speaker=["s"] * 5 + ["t"] * 5)
    scores = scored(np.arange(10) + 1.0)
    with pytest.raises(UserError, match="keeps none of the 10 training cuts in cycle 1"):
        plan_of(index, scores, policy="easy", keep=0.01)
    with pytest.raises(UserError, match="no cut of language 'b' in cycle 1: set data_pruning.fl"):
        plan_of(index, scores, policy="easy", keep=0.5)
    plan = plan_of(index, scores, policy="easy", keep=0.5, floors={"language": 0.1})
    assert kept(plan) == {0, 1, 2, 3, 9}
    with pytest.raises(UserError, match="tells apart language, speaker .did you mean 'language'"):
        check_plan(index, DataPruningOptions(policy="easy", keep=0.5, floors={"langage": 0.1}))


WRONG = [
    ({"keep": 0.0}, "data_pruning.keep=0.0: must be above 0 and at most 1"),
    ({"keep": -0.5}, "must be above 0"),
    ({"keep": 1.1}, "data_pruning.keep=1.1"),
    ({"keep": math.nan}, "data_pruning.keep=nan"),
    ({"policy": "easy", "keep": 0.16}, "keep must be at least 0.1667"),
    ({"policy": "my:own", "keep": 0.3, "max_age": 1}, "keep must be at least 0.5"),
    ({"policy": "eazy"}, "(did you mean 'easy'?)"),
    ({"floors": {"language": 1.5}}, "floors.language=1.5: must be between 0 and 1"),
    ({"policy": "el2n"}, "set data_pruning.score=el2n"),
    ({"policy": "forgetting"}, "warmup_cycles=1: policy forgetting needs at least 2"),
    ({"policy": "hard", "warmup_cycles": 0}, "policy hard needs at least 1"),
    ({"unit": "hours"}, "choose one of seconds, utterances"),
    ({"strata": 101}, "must be between 0 and 100"),
]


@pytest.mark.parametrize("values, message", WRONG, ids=str)
def test_wrong_options(values, message):
    with pytest.raises(UserError) as caught:
        check(DataPruningOptions(**values), "data_pruning.")
    assert message in str(caught.value)


def test_options_that_go_together():
    for values in (
        {"policy": "easy", "keep": 0.1, "max_age": 0},
        {"policy": "static_easy", "keep": 0.1},
        {"policy": "easy", "keep": 1 / 6},
        {"policy": "random", "keep": 0.5, "warmup_cycles": 0},
    ):
        check(DataPruningOptions(**values))


def test_presets():
    for name, options in PRESETS.items():
        check(options)
        assert preset(name)["policy"] == options.policy
        preset(name)["time"]["rho"] = 0.5
        assert preset(name)["time"]["rho"] == 0.3
    with pytest.raises(UserError, match="data_pruning=recomended: .* .did you mean 'recommended'"):
        preset("recomended")
