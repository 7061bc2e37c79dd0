"""Small corpora with scores, and a plan by sorted lists in float64."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from asrprune.base.randomness import key_to_seed
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import (
    DYNAMIC_POLICIES,
    STATIC_POLICIES,
    DataPruningOptions,
)
from asrprune.data_pruning.plan import Plan, make_plan
from asrprune.data_pruning.scores import ScoreTable

# Written down here, and not read from the policies, so that a wrong mark of a policy shows.
EMERGENT = ("infobatch", "seta", "cowerage")
DYNAMIC = [name for name in DYNAMIC_POLICIES if name != "full"]
STATIC = list(STATIC_POLICIES)
FIXED = [name for name in DYNAMIC + STATIC if name not in EMERGENT]
STRATIFIED = [name for name in FIXED if name not in ("longest", "shortest")]

SEEDS, SHARES = st.integers(0, 10**6), st.sampled_from([0.2, 0.35, 0.5, 0.7, 0.9])
UNITS, STRATA = st.sampled_from(["seconds", "utterances"]), st.sampled_from([0, 4, 10])
law = settings(deadline=None, max_examples=60)


def make_index(durations, **groups) -> CutIndex:
    """An index of cuts that are utterances of their own; groups as lists of names."""
    coded = {}
    for name, values in groups.items():
        names, codes = np.unique(values, return_inverse=True)
        coded[name] = (codes, names.tolist())
    return CutIndex(np.arange(len(durations), dtype=np.uint64) * 77, durations, groups=coded)


def scored(*cycles) -> ScoreTable:
    """A table after cycles of scores (U,) each; NaN is not known."""
    table = ScoreTable(len(cycles[0]), detrend=False)
    for values in cycles:
        table.add(np.arange(len(values)), np.array(values))
        table.merge(table.pending())
    return table


def random_case(seed: int, count: int, equal: bool = False):
    """An index of ``count`` cuts, of equal duration or not, and scores, some of them equal."""
    rng = np.random.default_rng(seed)
    durations = np.full(count, 3.0) if equal else rng.gamma(3, 3, count)
    scores = rng.lognormal(0, 0.7, count)
    scores[rng.random(count) < 0.2] = 1.0
    return make_index(durations), scored(scores)


def plan_of(index, scores, seed=1, cycle=1, cycles=100, history=None, **options) -> Plan:
    """A plan without strata, anneal and ages where ``options`` do not say so, in utterances."""
    values = {"strata": 0, "anneal": 0.0, "max_age": 0, "unit": "utterances", **options}
    history = history or History(len(index))
    return make_plan(index, scores, DataPruningOptions(**values), seed, cycle, cycles, history)


def policy_draws(count: int, seed: int, cycle: int) -> np.ndarray:
    """The uniform numbers that a policy draws first."""
    rng = np.random.default_rng(key_to_seed("data_pruning", "policy", seed, cycle))
    return rng.random(count, dtype=np.float32)


def plan_draws(count: int, seed: int, cycle: int) -> np.ndarray:
    """The uniform numbers that order the cuts of unknown score."""
    rng = np.random.default_rng(key_to_seed("data_pruning", "plan", seed, cycle))
    return rng.random(count, dtype=np.float32)


def cost_of(index: CutIndex, unit: str) -> np.ndarray:
    """What each cut costs of the budget."""
    return index.duration if unit == "seconds" else np.ones(len(index), np.float32)


def strata_of(index: CutIndex, strata: int) -> list[np.ndarray]:
    """The cuts of each duration stratum; all cuts together where there are no strata."""
    codes = index.strata(strata) if strata > 1 else np.zeros(len(index), int)
    return [np.flatnonzero(codes == code) for code in range(max(strata, 1)) if code in codes]


def covering(order, cost, budget: float) -> set[int]:
    """The first cuts of ``order`` that cost ``budget`` or, by less than a cut, more."""
    chosen, spent = set(), 0.0
    for cut in order:
        if spent >= budget:
            break
        chosen.add(int(cut))
        spent += float(cost[cut])
    return chosen


def rounded(number: float) -> int:
    """To the nearest whole number, a half downwards."""
    return int(np.ceil(number - 0.5))


def first_by(values, number: int, among=None) -> set[int]:
    """Indices of the lowest values, ties by index."""
    among = range(len(values)) if among is None else among
    return set(sorted(among, key=lambda i: (float(values[i]), i))[:number])


def kept(plan: Plan) -> set[int]:
    return set(np.flatnonzero(plan.keep).tolist())
