"""A user's own policies, and how options reach a policy."""

import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data_pruning.history import History
from asrprune.data_pruning.policies import load_policy
from tests.data_pruning.plan_cases import (
    SEEDS,
    covering,
    first_by,
    kept,
    make_index,
    plan_draws,
    plan_of,
    random_case,
    rounded,
    scored,
)

OWN = """
import numpy as np
from asrprune.data_pruning.context import Ranking, Selection

def third(context, offset: int = 0, **more):
    return Selection(np.arange(len(context)) % 3 == offset)

def loudest(context, needed: float, name: str = "x"):
    return -context.score * needed

def tiered(context, seed: int, tiers: int):
    tier = np.random.default_rng(seed).permutation(len(context)) % tiers
    return Ranking(context.score, tier.astype(np.uint8 if tiers <= 256 else np.uint16))

def last_tier(context, tier: int, kind: str = "uint16"):
    return Ranking(context.score, np.array(30 * [tier]).astype(kind))

def short(context):
    return np.zeros(3)

def nan(context):
    return np.where(np.arange(len(context)) == 5, np.nan, 0.0)

def lists(context):
    count = len(context)
    return Ranking(list(range(count)), np.zeros(count, np.uint8).tolist())

def chosen_by_lists(context, weights: bool):
    keep = [n % 3 == 0 for n in range(len(context))]
    return Selection(keep, [2.0 if kept else 0.0 for kept in keep] if weights else None)

def nan_weight(context):
    keep = np.ones(len(context), bool)
    return Selection(keep, np.where(keep, np.nan, 1).astype(np.float32))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """``own_policies``, a user's module on the Python path."""
    (tmp_path / "own_policies.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_policies", None)


def test_own_policies(own):
    index, scores = random_case(3, 30)
    plan = plan_of(
        index, scores, policy="own_policies:third", keep=0.3, policy_options={"offset": 1}
    )
    assert kept(plan) == set(range(1, 30, 3))
    plan = plan_of(
        index, scores, policy="own_policies:loudest", keep=0.5, policy_options={"needed": 2}
    )
    assert kept(plan) == first_by(-scores.last, 15)
    options = {"tier": 65533}
    plan = plan_of(index, scores, policy="own_policies:last_tier", keep=0.5, policy_options=options)
    assert kept(plan) == first_by(scores.last, 15)
    for options in ({"tier": 65534}, {"tier": 1, "kind": "int64"}, {"tier": 1, "kind": "float32"}):
        with pytest.raises(UserError, match="uint8 or uint16 tiers up to 65533"):
            plan_of(
                index, scores, policy="own_policies:last_tier", keep=0.5, policy_options=options
            )
    for name, message in (
        ("short", "must return a number for each of 30 cuts"),
        ("nan", "returned NaN for cuts with known scores"),
        ("nan_weight", "finite numbers for kept cuts"),
    ):
        with pytest.raises(UserError, match=message):
            plan_of(index, scores, policy=f"own_policies:{name}", keep=0.5)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SEEDS, st.integers(300, 600), st.sampled_from([0.1, 0.3, 0.5, 0.9, 0.99]),
       st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3, 0.8]),
       st.sampled_from([256, 256, 300]))  # fmt: skip
@example(1, 400, 0.12, True, True, 0.0, 256)  # not all unknown ones fit beside the old ones
@example(2, 400, 0.3, True, True, 0.5, 256)
@example(3, 300, 0.99, False, True, 0.0, 256)
def test_all_tiers_keep_their_order(own, seed, count, keep, aged, some_unknown, floor, tiers):
    """Whatever comes before them: ages, floors, and cuts of unknown score."""
    rng = np.random.default_rng(seed)
    language = rng.integers(0, 3, count)
    index = make_index(np.ones(count), language=[f"l{code}" for code in language])
    scores = scored(rng.integers(1, 50, count).astype(float))
    if some_unknown:
        scores.count[rng.random(count) < 0.05] = 0
    history, ones, forced = History(count), np.ones(count), set()
    if aged:
        history.age[:] = rng.integers(0, 9, count)
        due = np.flatnonzero(history.age >= 8)
        forced = covering(due, ones, count / 8)
    plan = plan_of(
        index, scores, seed, policy="own_policies:tiered", keep=keep, max_age=8, history=history,
        policy_options={"seed": seed, "tiers": tiers}, floors={"language": floor} if floor else {},
    )  # fmt: skip

    tier, draws = np.random.default_rng(seed).permutation(count) % tiers, plan_draws(count, seed, 1)
    assert set(tier) == set(range(tiers))

    def place(cut: int) -> tuple:
        if not scores.count[cut]:
            return (cut not in forced, -1, float(draws[cut]), cut)
        return (cut not in forced, int(tier[cut]), float(scores.last[cut]), cut)

    order, must, lacking = sorted(range(count), key=place), forced, set()
    while True:
        first = sorted(order, key=lambda cut: cut not in must)
        chosen = first[: max(len(must), rounded(keep * count))]
        sizes, found = np.bincount(language, minlength=3), np.bincount(language[chosen], None, 3)
        if not (below := set(np.flatnonzero(found < floor * sizes).tolist())):
            break
        lacking |= below
        groups = [[cut for cut in order if language[cut] == code] for code in lacking]
        floored = [
            covering(group, ones, floor * sizes[code])
            for code, group in zip(lacking, groups, strict=True)
        ]
        must = forced.union(*floored)
    assert kept(plan) == set(chosen)


WRONG = [
    ("easy2hurd", {}, "no such policy (did you mean 'easy2hard'?)"),
    ("easy2hard", {"mood": "window"}, "policy_options.mood: unknown option (did you mean 'mode'?)"),
    ("easy", {"x": 1}, "easy takes no options"),
    ("ucb", {"c": "one"}, "policy_options.c='one': expected float"),
    ("ucb", {"c": True}, "policy_options.c=True: expected float"),
    ("seta", {"groups": 2.5}, "policy_options.groups=2.5: expected int"),
    ("random", {"replacement": 1}, "policy_options.replacement=1: expected bool"),
    ("static_random", {"replacement": False}, "policy_options.replacement: unknown option"),
    ("own_policies", {}, "no such policy"),
    ("own_policies:thirt", {}, "own_policies has no 'thirt' (did you mean 'third'?)"),
    ("no_such_module:f", {}, "there is no module 'no_such_module'"),
    ("own policies:f", {}, "not of the form package.module:callable"),
    ("own_policies:loudest", {}, "own_policies:loudest needs needed"),
    ("own_policies:loudest", {"needed": 1.0, "nam": "a"}, "(did you mean 'name'?)"),
]


@pytest.mark.parametrize("policy, options, message", WRONG, ids=str)
def test_wrong_names_and_options(policy, options, message, own):
    with pytest.raises(UserError) as caught:
        load_policy(policy, options)
    assert message in str(caught.value)


@pytest.mark.parametrize("weights", [False, True])
def test_lists_in_place_of_arrays(own, weights):
    index, scores = make_index(np.ones(30)), scored(np.ones(30))
    plan = plan_of(
        index, scores, 1, policy="own_policies:chosen_by_lists", keep=0.5, max_age=0,
        policy_options={"weights": weights},
    )  # fmt: skip
    assert kept(plan) == set(range(0, 30, 3))
    with pytest.raises(UserError, match="uint8 or uint16 tiers"):
        plan_of(index, scores, 1, policy="own_policies:lists", keep=0.5, max_age=0)


def test_free_options_of_own_policies_pass(own):
    load_policy("own_policies:third", {"anything": 3})
