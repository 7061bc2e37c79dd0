"""What comes first in a plan: floors, ages and unknown scores, before what the policy wants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data_pruning.history import History
from asrprune.data_pruning.options import UNSCORED_POLICIES, DataPruningOptions
from asrprune.data_pruning.plan import check_plan
from asrprune.data_pruning.policies import POLICIES
from tests.data_pruning.plan_cases import (
    DYNAMIC,
    FIXED,
    SEEDS,
    SHARES,
    STATIC,
    STRATA,
    UNITS,
    cost_of,
    covering,
    first_by,
    kept,
    law,
    make_index,
    plan_draws,
    plan_of,
    random_case,
    scored,
    strata_of,
)


def due_for_age(index, history, keep, unit, strata, limit) -> set[int]:
    """The cuts that a fixed budget must hold for their age, by sorted lists."""
    cost, forced = cost_of(index, unit), set()
    for part in strata_of(index, strata):
        due = [cut for cut in part if history.age[cut] >= limit]
        due.sort(key=lambda cut: (-int(history.age[cut]), cut))
        budget = (1 - keep) * cost[part].sum(dtype=np.float64) + 2 * float(cost.max())
        forced |= covering(due, cost, budget / limit)
    return forced


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(FIXED), SEEDS, st.integers(25, 80), SHARES, UNITS, STRATA,
       st.integers(1, 6))  # fmt: skip
def test_ages_take_what_they_need_and_no_more(policy, seed, count, keep, unit, strata, limit):
    """To half a cut the budget is met, or what is due for its age where that is more."""
    index, scores = random_case(seed, count)
    rng = np.random.default_rng(seed)
    scores.worse_sum[:] = rng.random(count)
    history = History(count)
    history.age[:] = rng.integers(0, 9, count)
    plan = plan_of(
        index, scores, seed, policy=policy, history=history, keep=keep, unit=unit, strata=strata,
        max_age=limit,
    )  # fmt: skip
    forced, due = set(), 0
    if policy not in STATIC:
        forced = due_for_age(index, history, keep, unit, strata, limit)
        due = int((history.age >= limit).sum())
    assert forced <= kept(plan)
    assert (plan.report["forced"], plan.report["deferred"]) == (len(forced), due - len(forced))
    cost = cost_of(index, unit)
    asked, longest = keep * float(cost.sum(dtype=np.float64)), float(cost.max())
    needed = float(cost[list(forced)].sum(dtype=np.float64))
    off = float(cost[plan.keep].sum(dtype=np.float64)) - max(asked, needed)
    assert abs(off) <= longest / 2 + 1e-6
    assert bool(plan.report["notes"]) == (off + max(asked, needed) - asked > longest)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(DYNAMIC), SEEDS, st.integers(25, 60), SHARES, UNITS, STRATA,
       st.integers(1, 6), st.booleans())  # fmt: skip
def test_every_cut_is_visited(policy, seed, count, keep, unit, strata, limit, moving):
    """None is passed over more often than 2 max_age - 1 times in a row, whatever the scores do."""
    keep = max(keep, 1 / (limit + 1))
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
    """Languages that differ in difficulty, and speakers. More is kept only where it is needed."""
    rng = np.random.default_rng(seed)
    language = rng.integers(0, 3, count)
    names = {"language": [f"l{i}" for i in language], "speaker": rng.integers(0, 9, count)}
    names["speaker"] = [f"s{i}" for i in names["speaker"]]
    durations = rng.gamma(3, 3, count)
    index = make_index(durations, **names)
    scores = scored(*(rng.lognormal(language, 0.3) for _ in range(2)))
    scores.worse_sum[:] = rng.random(count)
    history = History(count)
    history.age[:] = rng.integers(0, 9, count)
    cost = cost_of(index, unit)
    floors = {"language": floor, "speaker": other}
    plan, free = (
        plan_of(
            cuts, scores, seed, policy=policy, keep=keep, unit=unit, strata=strata, max_age=5,
            floors=some, history=history,
        )
        for cuts, some in ((index, floors), (make_index(durations), {}))
    )  # fmt: skip
    needed = 0.0
    for name, share in floors.items():
        codes, groups = index.groups[name]
        for code in range(len(groups)):
            mine = codes == code
            least = share * float(cost[mine].sum())
            assert float(cost[mine & plan.keep].sum()) >= least * (1 - 1e-6)
            needed += (least + float(cost[mine].max())) * (share > 0)
    total = float(cost[plan.keep].sum())
    if policy == "full":
        assert plan.keep.all()
    elif POLICIES[policy].emergent:
        assert kept(free) <= kept(plan)
        assert len(kept(plan) - kept(free)) == plan.report["floored"]
        assert total <= float(cost[free.keep].sum()) + needed + 1e-3
    else:
        asked, longest = keep * float(cost.sum()), float(cost.max())
        forced = [cut for cut in range(count) if history.age[cut] >= 5 and plan.keep[cut]]
        most = max(asked, needed + float(cost[forced].sum()) * bool(plan.report["forced"]))
        assert asked - longest / 2 - 1e-3 <= total <= most + longest / 2 + 1e-3
        assert bool(plan.report["notes"]) == (total - asked > longest)


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
@given(st.sampled_from([p for p in DYNAMIC + STATIC if p not in UNSCORED_POLICIES]), SEEDS,
       st.integers(1, 20))  # fmt: skip
def test_unknown_scores_come_first(policy, seed, unknown):
    """Inside the budget, if there is one; without a weight, if there are weights."""
    index, scores = random_case(seed, 60)
    values = np.where(np.arange(60) % 2, np.nan, np.inf)
    values[unknown:] = scores.last[unknown:]
    scores = scored(values, values * 1.5)
    plan = plan_of(index, scores, seed, policy=policy, keep=0.5)
    assert plan.keep[:unknown].all()
    assert plan.report["unknown"] == unknown
    assert plan.weights is None or (plan.weights[:unknown] == 1).all()
    if not POLICIES[policy].emergent:
        assert len(kept(plan)) == 30 and not plan.report["notes"]
    scores.count[:59] = 0
    many = plan_of(index, scores, seed, policy=policy, keep=0.5)
    if not POLICIES[policy].emergent:  # more are unknown than fit: a draw of them
        assert kept(many) == first_by(plan_draws(60, seed, 1), 30, range(59))


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


def test_nothing_left():
    index = make_index(np.ones(10), language=["a"] * 9 + ["b"], speaker=["s"] * 5 + ["t"] * 5)
    scores = scored(np.arange(10) + 1.0)
    with pytest.raises(UserError, match="keeps none of the 10 training cuts in cycle 1"):
        plan_of(index, scores, policy="easy", keep=0.01)
    plan = plan_of(index, scores, policy="easy", keep=0.5)
    assert kept(plan) == {0, 1, 2, 3, 4, 9} and plan.report["lacking"] == {"language": ["b"]}
    plan = plan_of(index, scores, policy="easy", keep=0.5, floors={"language": 0.1})
    assert kept(plan) == {0, 1, 2, 3, 9}
    with pytest.raises(UserError, match="It gives: language, speaker .did you mean 'language'"):
        check_plan(index, DataPruningOptions(policy="easy", keep=0.5, floors={"langage": 0.1}))


@pytest.mark.parametrize("policy", ["random", "easy", "hard", "easy2hard", "infobatch", "seta"])
def test_every_plan_has_a_cut_of_each_language(policy):
    """Four cuts of 400 are of a second language. The cut that was skipped longest comes first."""
    language = ["a"] * 396 + ["b"] * 4
    index = make_index(np.ones(400), language=language)
    scores = scored(np.random.default_rng(0).lognormal(0, 0.5, 400))
    history = History(400)
    for cycle in range(1, 25):
        before = history.age.copy()
        plan = plan_of(
            index, scores, cycle=cycle, policy=policy, keep=0.5, history=history, max_age=0
        )
        of_b = plan.keep[396:]
        assert of_b.any()
        if "lacking" in plan.report:
            assert plan.report["lacking"] == {"language": ["b"]} and of_b.sum() == 1
            assert before[396:][of_b] == before[396:].max()
            assert "one cut is kept of each of language 'b'" in plan.report["notes"][-1]
            assert plan.weights is None or plan.weights[396:][of_b] == 1
        history.advance(plan.keep)
