"""Each policy against its formula over sorted lists."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data_pruning.history import History
from asrprune.data_pruning.options import DYNAMIC_POLICIES, STATIC_POLICIES, DataPruningOptions
from asrprune.data_pruning.plan import check_plan
from asrprune.data_pruning.policies import POLICIES
from asrprune.data_pruning.policies_emergent import kmeans_edges
from tests.data_pruning.plan_cases import (
    SEEDS,
    first_by,
    kept,
    make_index,
    plan_of,
    policy_draws,
    random_case,
    rounded,
    scored,
)

SHARES = st.sampled_from([0.2, 0.3, 0.5, 0.7, 0.9, 0.99])
COUNTS = st.integers(12, 60)
law = settings(deadline=None, max_examples=40)


def test_names_and_kinds():
    assert set(POLICIES) == set(DYNAMIC_POLICIES + STATIC_POLICIES)
    assert {name for name, policy in POLICIES.items() if policy.static} == set(STATIC_POLICIES)


@law
@given(SEEDS, COUNTS, SHARES)
def test_ends_and_middle(seed, count, keep):
    index, scores = random_case(seed, count)
    number, score = rounded(keep * count), scores.last
    for names, expected in (
        (("easy", "static_easy"), first_by(score, number)),
        (("hard", "static_hard"), first_by(-score, number)),
        (("el2n",), first_by(-scores.mean, number)),
        (("longest",), first_by(-index.duration, number)),
        (("shortest",), first_by(index.duration, number)),
        (("middle", "static_middle"), _window(score, rounded((1 - keep) / 2 * count), number)),
    ):
        for policy in names:
            kind = {"score": "el2n"} if policy == "el2n" else {}
            assert kept(plan_of(index, scores, policy=policy, keep=keep, **kind)) == expected


@law
@given(SEEDS, COUNTS, SHARES, st.integers(0, 10))
def test_easy2hard(seed, count, keep, turn):
    index, scores = random_case(seed, count)
    number, score, progress = rounded(keep * count), scores.last, turn / 10

    def chosen(**options):
        return kept(
            plan_of(
                index, scores, cycle=1 + turn, cycles=12, policy="easy2hard", keep=keep,
                policy_options=options,
            )
        )  # fmt: skip

    below = rounded(progress * (1 - keep) * count)
    window = _window(score, below, number) if progress < 1 else first_by(-score, number)
    assert chosen() == chosen(mode="window") == window
    easiest = first_by(score, rounded((1 - progress) * keep * count))
    rest = set(range(count)) - easiest
    assert chosen(mode="quota") == easiest | first_by(-score, number - len(easiest), rest)
    switched = first_by(score if progress < 0.3 else -score, number)
    assert chosen(mode="switch", switch=0.3) == switched


def _window(score, below: int, number: int) -> set[int]:
    """Ranks from ``below`` on; where they end, the last ones below."""
    lower = first_by(score, below)
    upper = first_by(score, number, set(range(len(score))) - lower)
    missing = number - len(upper)
    return upper | first_by(-score, missing, lower)


@law
@given(SEEDS, COUNTS, SHARES, st.floats(0, 1))
def test_orderdp_and_epsilon_greedy(seed, count, keep, other):
    index, scores = random_case(seed, count)
    number, score, draws = rounded(keep * count), scores.last, policy_draws(count, seed, 1)
    share = keep + other * (1 - keep)
    pool = first_by(draws, rounded(share * count))
    plan = plan_of(
        index, scores, seed=seed, policy="orderdp", keep=keep, policy_options={"pool": share}
    )
    assert kept(plan) == first_by(-score, number, pool)
    greedy = first_by(-scores.mean, rounded((1 - other) * keep * count))
    plan = plan_of(
        index, scores, seed=seed, policy="epsilon_greedy", keep=keep,
        policy_options={"epsilon": other},
    )  # fmt: skip
    others = first_by(draws, number - len(greedy), set(range(count)) - greedy)
    assert kept(plan) == greedy | others


@law
@given(SEEDS, COUNTS, SHARES, st.floats(0, 5))
def test_ucb_and_forgetting(seed, count, keep, c):
    rng = np.random.default_rng(seed)
    scores = scored(*rng.lognormal(0, 1, (3, count)))
    index, number = make_index(np.ones(count)), rounded(keep * count)
    bound = np.sqrt(scores.variance) * -np.float32(c) - scores.mean
    plan = plan_of(index, scores, policy="ucb", keep=keep, policy_options={"c": c})
    assert kept(plan) == first_by(bound, number)
    options = {"policy": "forgetting", "keep": keep, "warmup_cycles": 2, "cycle": 2}
    assert kept(plan_of(index, scores, **options)) == first_by(-scores.worse_sum, number)
    options["policy_options"] = {"magnitude": False}
    times = -scores.worse_times.astype(float)
    assert kept(plan_of(index, scores, **options)) == first_by(times, number)


@law
@given(SEEDS, COUNTS, SHARES, st.booleans(), st.booleans())
def test_infobatch(seed, count, keep, some_unknown, aged):
    """Cuts that are due for their age are among the share that is kept and weighed."""
    index, scores = random_case(seed, count)
    if some_unknown:
        scores.count[::7] = 0
    history, forced = History(count), set()
    if aged:
        history.age[:] = np.random.default_rng(seed).integers(0, 9, count)
        due = [i for i in range(count) if history.age[i] >= 3]
        due.sort(key=lambda i: (-int(history.age[i]), i))
        forced = set(due[: math.ceil(count / 3)])
    plan = plan_of(
        index, scores, seed=seed, policy="infobatch", keep=keep, max_age=3, history=history
    )
    known = [i for i in range(count) if scores.count[i]]
    mean = sum(float(scores.last[i]) for i in known) / len(known)
    low = [i for i in known if float(scores.last[i]) < mean]
    number = max(1, math.floor(keep * len(low) + 0.5), len(forced & set(low)))
    draws = policy_draws(count, seed, 1)
    drawn = set(sorted(low, key=lambda i: (i not in forced, float(draws[i])))[:number])
    assert kept(plan) == set(range(count)) - set(low) | drawn
    weights = np.ones(count)
    weights[low] = 0
    weights[list(drawn)] = len(low) / number
    assert np.allclose(plan.weights if low else 1.0, weights)
    assert math.isclose(weights.sum(), count)


def test_infobatch_of_equal_scores_keeps_all():
    """No score is below the mean, so none is drawn from."""
    plan = plan_of(make_index(np.ones(30)), scored(np.full(30, 0.7)), policy="infobatch", keep=0.5)
    assert plan.keep.all() and (plan.weights is None or (plan.weights == 1).all())


def test_infobatch_beyond_what_half_precision_can_count():
    """Public code gathers indices in the dtype of the loss: fp16 ends at 2,048."""
    rng = np.random.default_rng(0)
    plan = plan_of(
        make_index(np.ones(5000)), scored(rng.lognormal(0, 1, 5000)), policy="infobatch", keep=0.5
    )
    dropped = np.flatnonzero(~plan.keep)
    assert dropped.max() > 4900 and len(np.unique(dropped % 2)) == 2
    assert math.isclose(plan.weights.sum(), 5000)
    # the measured saving is far from r = 0.5, and the report tells it
    assert 0.25 < 1 - plan.report["cuts"] < 0.4


@law
@given(SEEDS, COUNTS, st.sampled_from([0.5, 0.8, 0.99]), st.sampled_from([*range(1, 7), 40, 500]),
       st.sampled_from([0.0, 0.3, 0.5, 1.0]), st.integers(0, 20))  # fmt: skip
@example(3, 40, 0.99, 3, 0.5, 0)  # a window of 1.5 groups is one of 2
@example(3, 40, 0.99, 5, 0.3, 0)
@example(3, 60, 0.99, 40, 0.5, 3)
@example(3, 60, 0.99, 500, 0.5, 20)
def test_seta(seed, count, keep, groups, alpha, turn):
    index, scores = random_case(seed, count)
    cycle, score = 1 + turn, scores.last.astype(np.float64)
    pool = sorted(first_by(policy_draws(count, seed, cycle), rounded(keep * count)))
    edges = _lloyd(sorted(score[pool]), groups)
    width = max(1, math.floor(alpha * groups + 0.5))
    start = turn % (groups - width + 1)
    chosen = {i for i in pool if start <= sum(score[i] >= edges) < start + width}
    with nullcontext() if chosen else pytest.raises(UserError, match="keeps none of the"):
        plan = plan_of(
            index, scores, seed=seed, cycle=cycle, policy="seta", keep=keep,
            policy_options={"groups": groups, "alpha": alpha},
        )  # fmt: skip
        assert kept(plan) == chosen


def _lloyd(values: list[float], groups: int) -> np.ndarray:
    values = np.array(values)
    centres = np.array([values[(2 * g + 1) * len(values) // (2 * groups)] for g in range(groups)])
    before = None
    while True:
        edges = (centres[1:] + centres[:-1]) / 2
        group = np.array([sum(value >= edges) for value in values])
        if before is not None and (group == before).all():
            return edges
        before = group
        for g in range(groups):
            if (group == g).any():
                centres[g] = values[group == g].mean()


def test_kmeans_over_blocks():
    """Sums over many blocks of values are those of all values."""
    rng = np.random.default_rng(0)
    values = np.sort(rng.lognormal(0, 1, 20_000).astype(np.float32))
    edges = kmeans_edges(values, 6, rounds=3)
    centres = values[(2 * np.arange(6) + 1) * 20_000 // 12].astype(np.float64)
    for _ in range(2):
        group = np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")
        centres = np.array([values[group == g].astype(np.float64).mean() for g in range(6)])
    assert np.allclose(edges, (centres[1:] + centres[:-1]) / 2, rtol=1e-12)


@law
@given(SEEDS, st.integers(30, 80), SHARES)
def test_cowerage_draws_a_share_of_each_stratum(seed, count, keep):
    rng = np.random.default_rng(seed)
    scores = scored(rng.permutation(count) + 1.0)
    plan = plan_of(make_index(np.ones(count)), scores, seed, policy="cowerage", keep=keep)
    draws = policy_draws(count, seed, 1)
    for stratum in np.split(np.argsort(scores.last), np.arange(1, 10) * count // 10):
        mine = kept(plan) & set(stratum.tolist())
        assert abs(len(mine) - keep * len(stratum)) < 1
        assert mine == first_by(draws, len(mine), stratum.tolist())
    assert abs(len(kept(plan)) - keep * count) <= 0.5 + 1e-9


@law
@given(SEEDS, SHARES, st.sampled_from(["easy", "longest", "shortest", "hard"]))
def test_duration_matched(seed, keep, like):
    """As much of each class of duration, drawn anew."""
    index, scores = random_case(seed, 300)
    options = {"keep": keep, "unit": "seconds"}
    model = plan_of(index, scores, seed, policy=like, **options)
    plan = plan_of(
        index, scores, seed, policy="duration_matched", policy_options={"like": like}, **options
    )
    draws, codes = policy_draws(300, seed, 1), index.strata(20)
    longest, others = float(index.duration.max()), 0
    for code in range(20):
        part = np.flatnonzero(codes == code).tolist()
        model_seconds, seconds = (
            float(index.duration[part][p.keep[part]].sum()) for p in (model, plan)
        )
        mine = kept(plan) & set(part)
        assert mine == first_by(draws, len(mine), part)
        # a class is missed by less than a cut, and in all one or two cuts are put right
        others += abs(seconds - model_seconds) >= float(index.duration[part].max())
    assert others <= 2
    total = float(index.duration[plan.keep].sum())
    assert abs(total - float(index.duration[model.keep].sum())) <= longest


@law
@given(SEEDS, COUNTS, SHARES)
def test_random_without_replacement_balances_visits(seed, count, keep):
    index, scores = random_case(seed, count)
    history = History(count)
    for cycle in range(12):
        plan = plan_of(
            index, scores, seed=seed, cycle=cycle, history=history, policy="random", keep=keep,
            warmup_cycles=1, policy_options={"replacement": False},
        )  # fmt: skip
        history.advance(plan.keep)
        assert history.visits.max() - history.visits.min() <= 1


@law
@given(SEEDS, COUNTS, SHARES)
def test_the_least_visited_come_first(seed, count, keep):
    """However far apart the visits are, as after a training with another policy."""
    index, scores = random_case(seed, count)
    history = History(count)
    numbers = [3, 4, 250, 258, 259, 300, 301, 5000, 65535]
    history.visits[:] = np.random.default_rng(seed).choice(numbers, count)
    plan = plan_of(
        index, scores, seed=seed, history=history, policy="random", keep=keep,
        policy_options={"replacement": False},
    )  # fmt: skip
    draws = policy_draws(count, seed, 1)
    order = sorted(range(count), key=lambda i: (history.visits[i], float(draws[i])))
    assert kept(plan) == set(order[: rounded(keep * count)])


@pytest.mark.parametrize(
    "policy, options",
    [
        ("cowerage", {"buckets": 1}),
        ("duration_matched", {"bins": 1}),
        ("seta", {"groups": 1}),
    ],
)
def test_of_one_class_a_share_is_drawn(policy, options):
    index, scores = random_case(0, 30)
    plan = plan_of(index, scores, policy=policy, keep=0.5, policy_options=options)
    assert kept(plan) == first_by(policy_draws(30, 1, 1), 15)


def test_more_groups_than_scores():
    """Each score is a group of its own, and the window moves over those of the pool."""
    rng = np.random.default_rng(0)
    index, scores = make_index(np.ones(30)), scored(rng.permutation(30) + 1.0)
    for cycle, (first, last) in {1: (0, 7), 101: (3, 10), 251: (7, 15), 252: (0, 7)}.items():
        plan = plan_of(
            index, scores, cycle=cycle, cycles=400, policy="seta", keep=0.5,
            policy_options={"groups": 500},
        )  # fmt: skip
        pool = first_by(policy_draws(30, 1, cycle), 15)
        assert kept(plan) == set(sorted(pool, key=lambda i: scores.last[i])[first:last])


@pytest.mark.parametrize(
    "policy, keep, default, other",
    [
        ("random", 0.5, {"replacement": True}, {"replacement": False}),
        ("easy2hard", 0.5, {"mode": "window"}, {"mode": "quota"}),
        ("easy2hard", 0.5, {"mode": "switch", "switch": 0.5}, {"mode": "switch", "switch": 0.2}),
        ("epsilon_greedy", 0.5, {"epsilon": 0.1}, {"epsilon": 0.3}),
        ("ucb", 0.5, {"c": 1.0}, {"c": 4.0}),
        ("orderdp", 0.75, {"pool": 0.85}, {"pool": 0.95}),
        ("seta", 0.8, {"groups": 10, "alpha": 0.5}, {"groups": 12, "alpha": 0.5}),
        ("seta", 0.8, {"alpha": 0.5}, {"alpha": 0.6}),
        ("cowerage", 0.5, {"buckets": 10}, {"buckets": 9}),
        ("duration_matched", 0.5, {"like": "easy", "bins": 20}, {"like": "hard", "bins": 20}),
        ("duration_matched", 0.5, {"bins": 20}, {"bins": 10}),
        ("forgetting", 0.5, {"magnitude": True}, {"magnitude": False}),
    ],
)
def test_defaults_are_the_published_numbers(policy, keep, default, other):
    rng = np.random.default_rng(0)
    index, scores = make_index(rng.gamma(3, 3, 200)), scored(*rng.lognormal(0, 1, (3, 200)))
    history = History(200)
    history.visits[:] = rng.integers(0, 9, 200)
    switch = {"mode": "switch"} if default.get("mode") == "switch" else {}
    plans = [
        plan_of(
            index, scores, cycle=35, policy=policy, keep=keep, policy_options=options,
            history=history,
        ).digest
        for options in (switch, default, other)
    ]  # fmt: skip
    assert plans[0] == plans[1] != plans[2]


def test_smooth_ranks_by_the_typical_score():
    rng = np.random.default_rng(0)
    index, scores = make_index(np.ones(60)), scored(*rng.lognormal(0, 1, (4, 60)))
    for policy, sign in (("easy", 1), ("hard", -1)):
        for smooth, values in ((True, scores.typical), (False, scores.last)):
            plan = plan_of(index, scores, policy=policy, keep=0.5, smooth=smooth)
            assert kept(plan) == first_by(sign * values, 30)
    assert first_by(scores.typical, 30) != first_by(scores.last, 30)


def test_random_is_uniform_and_fresh():
    index, scores = random_case(0, 200)
    counts = sum(
        plan_of(index, scores, cycle=cycle, cycles=500, policy="random", keep=0.5).keep.astype(int)
        for cycle in range(1, 401)
    )
    assert abs(counts.mean() - 200) < 1e-9
    assert 8 < counts.std() < 12  # of 400 throws of a coin: 10


@pytest.mark.parametrize(
    "policy, options, message",
    [
        ("easy2hard", {"mode": "windows"}, "policy_options.mode=windows: choose one of window"),
        ("orderdp", {"pool": 0.5}, "policy_options.pool=0.5: must be between 0.7 and 1"),
        ("epsilon_greedy", {"epsilon": 1.5}, "policy_options.epsilon=1.5: must be between 0 and 1"),
        ("seta", {"alpha": math.nan}, "policy_options.alpha=nan"),
        ("duration_matched", {"like": "eazy"}, "no such policy (did you mean 'easy'?)"),
        ("duration_matched", {"like": "full"}, "like=full: there is no such policy"),
        ("cowerage", {"buckets": 0}, "policy_options.buckets=0"),
        ("easy", {"hardness": 1}, "policy_options.hardness: unknown option"),
        ("eazy", {}, "data_pruning.policy=eazy: choose one of full, random"),
    ],
)
def test_policies_check_options_at_the_start(policy, options, message):
    index, _ = random_case(0, 10)
    with pytest.raises(UserError) as caught:
        check_plan(index, DataPruningOptions(policy, options, keep=0.7))
    assert message in str(caught.value)


@pytest.mark.parametrize("policy", DYNAMIC_POLICIES + STATIC_POLICIES)
def test_defaults_pass_the_check(policy):
    index, _ = random_case(0, 10)
    score = "el2n" if policy == "el2n" else "loss"
    for keep in (0.7, 1.0):
        check_plan(index, DataPruningOptions(policy, keep=keep, score=score, warmup_cycles=2))
