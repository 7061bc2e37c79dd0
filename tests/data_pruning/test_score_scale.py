"""Simulated trainings with known difficulties: scores rank them in every pruned cycle.

Losses fall, are noisy, and only those of the keep-set are seen. The keep-set of each cycle is
compared with the keep-set that the same rule chooses from the true difficulties.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.phases import PRUNED
from asrprune.data_pruning.plan import Plan, make_plan
from asrprune.data_pruning.scores import ScoreTable
from tests.data_pruning.plan_cases import scored

CYCLES = 13  # one of warm-up and twelve pruned ones


def agreement(plan: Plan, truth: Plan) -> float:
    """How far two keep-sets agree: 1 where they are equal, 0 where by chance alone."""
    kept, right = plan.keep, truth.keep
    chance = kept.mean() * right.sum()
    possible = min(kept.sum(), right.sum())
    return float(((kept & right).sum() - chance) / (possible - chance))


def simulate(
    policy: str,
    keep: float,
    seed: int = 0,
    count: int = 1500,
    batch: int = 20,
    noise: float = 0.03,
    fall: float = 0.35,
    detrend: bool = True,
    copies: int = 1,
    smooth: bool = True,
    cycles: int = CYCLES,
) -> list[float]:
    """The agreement of each pruned cycle.

    An utterance's loss is its difficulty times a level, which falls to an eighth and less, times
    noise.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.lognormal(0, 0.6, count)
    index = CutIndex(
        np.arange(count * copies, dtype=np.uint64) * 77,
        np.repeat(rng.gamma(4, 2, count).clip(1, 20), copies),
        np.repeat(np.arange(count), copies),
        np.arange(count, dtype=np.uint64) * 77,
    )
    options = DataPruningOptions(policy, keep=keep, anneal=0.0, detrend=detrend, smooth=smooth)
    scores, history = ScoreTable(count, options.ema, options.detrend), History(len(index))
    truth = scored(difficulty, difficulty)
    found = []
    for cycle in range(cycles):
        plan = make_plan(index, scores, options, seed, cycle, cycles, history)
        if plan.phase == PRUNED:
            right = make_plan(index, truth, options, seed, cycle, cycles, history)
            found.append(agreement(plan, right))
        order = rng.permutation(np.flatnonzero(plan.keep))
        batches = np.array_split(order, max(1, len(order) // batch))
        for number, cuts in enumerate(batches):
            level = 0.02 + 8 * np.exp(-fall * (cycle + number / len(batches)))
            utterances = index.utterance[cuts]
            losses = level * difficulty[utterances] * rng.lognormal(0, noise, len(cuts))
            scores.add(utterances, losses)
        scores.merge(scores.pending())
        history.advance(plan.keep)
    return found


RANKED = ("easy", "hard", "middle", "easy2hard", "infobatch", "orderdp", "ucb", "epsilon_greedy")


@pytest.mark.parametrize("keep", [0.7, 0.5])
@pytest.mark.parametrize("policy", RANKED)
def test_keep_sets_agree_with_known_difficulties(policy, keep):
    found = simulate(policy, keep)
    assert len(found) == 12
    assert min(found) >= 0.9, found


@settings(deadline=None, max_examples=15)
@given(
    policy=st.sampled_from(RANKED),
    keep=st.floats(0.4, 0.85),
    seed=st.integers(0, 10**6),
    # the first cycle's trend is a mean over some ten batches: tiny ones would leave it noisy
    count=st.integers(2500, 6000),
    batch=st.integers(20, 60),
    fall=st.floats(0.1, 0.6),
    copies=st.sampled_from([1, 3]),
)
def test_of_any_corpus_and_keep_ratio(policy, keep, seed, count, batch, fall, copies):
    found = simulate(policy, keep, seed, count, batch, 0.015, fall, copies=copies)
    assert len(found) == 12
    assert min(found) >= 0.9, found


def test_raw_losses_do_not_rank():
    """What the simulation would show of scores that were left on the scale of their date."""
    assert min(simulate("hard", 0.5, detrend=False)) < 0.5


@pytest.mark.parametrize("policy", ["easy", "hard", "middle", "easy2hard"])
def test_typical_scores_rank_where_chance_is_as_large_as_difficulty(policy):
    """As in trainings that have almost converged, where SpecAugment decides much of a loss."""
    typical, last = (
        np.mean(simulate(policy, 0.7, noise=1.0, smooth=smooth, cycles=25)[-6:])
        for smooth in (True, False)
    )
    assert typical > 0.5 and typical > last + 0.15


@pytest.mark.parametrize("rises", [False, True])
def test_chance_moves_no_scale(rises):
    """Renewed scores of much chance stay level with older ones, whichever half is renewed."""
    rng = np.random.default_rng(4)
    difficulty = rng.lognormal(0, 0.6, 2000)
    kept = (difficulty > np.median(difficulty)) == rises
    table = ScoreTable(2000)
    levels = []
    for cycle in range(30):
        order = rng.permutation(np.flatnonzero(kept) if cycle else np.arange(2000))
        for cuts in np.array_split(order, 40):
            table.add(cuts, difficulty[cuts] * rng.lognormal(0, 1.0, len(cuts)) * 0.9**cycle)
        table.merge(table.pending())
        found = np.log(table.typical / difficulty)
        levels.append(found[kept].mean() - found[~kept].mean())
    assert abs(levels[-1] - levels[0]) < 0.1


def test_renewed_scores_stay_on_the_scale_of_the_others():
    """The level of a keep-set does not drift, however many cycles renew it and none of the rest."""
    rng = np.random.default_rng(3)
    difficulty = rng.lognormal(0, 0.6, 1000)
    table = ScoreTable(1000)
    kept = difficulty < np.median(difficulty)
    levels = []
    for cycle in range(30):
        order = rng.permutation(np.flatnonzero(kept) if cycle else np.arange(1000))
        for number, cuts in enumerate(np.array_split(order, 20)):
            # within a cycle losses fall threefold, behind which a running trend must lag
            table.add(cuts, difficulty[cuts] * 3.0 ** -(cycle + number / 20))
        table.merge(table.pending())
        levels.append(np.sqrt(table.last[kept]).mean() / np.sqrt(table.last[~kept]).mean())
    assert levels[-1] == pytest.approx(levels[0], rel=0.01)
