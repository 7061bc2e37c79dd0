"""How much audio each epoch is planned to train on."""

import numpy as np
import pytest

from asrprune.data_pruning.history import History
from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions, preset
from asrprune.data_pruning.phases import (
    EMERGENT_SHARES,
    kept_shares,
    planned_shares,
    without_effect,
)
from asrprune.data_pruning.plan import make_plan
from asrprune.data_pruning.scores import ScoreTable
from tests.data_pruning.plan_cases import make_index


def test_epochs_of_all_data():
    assert planned_shares(DataPruningOptions(), 3) == [1.0] * 3
    assert planned_shares(DataPruningOptions(policy="random", keep=1.0), 3) == [1.0] * 3
    assert planned_shares(DataPruningOptions(policy="full", keep=0.5), 4) == [1.0] * 4
    for policy in EMERGENT_SHARES:
        assert planned_shares(DataPruningOptions(policy=policy, keep=1.0), 4) == [1.0] * 4


def test_pruned_cycles_and_dropped_time():
    time = TimeDroppingOptions(variant="point", drop_ratio=0.5, start=0.5, end=0.8)
    options = DataPruningOptions(policy="random", keep=0.7, anneal=0.1, time=time)
    assert planned_shares(options, 10) == pytest.approx([1, *[0.7] * 4, *[0.35] * 3, 0.7, 1])
    options.time.variant = "none"
    assert planned_shares(options, 10) == pytest.approx([1, *[0.7] * 8, 1])
    options.cycle = 3
    assert planned_shares(options, 7) == pytest.approx([1] * 3 + [0.7] * 4)
    paper = DataPruningOptions(**{**preset("ddp_asr_paper"), "time": time})
    assert planned_shares(paper, 2) == pytest.approx([1, 0.7])


@pytest.mark.parametrize(
    "epochs, values, found",
    [
        (30, {}, ""),
        (3, {"warmup_cycles": 2, "anneal": 0.3}, "prunes no cycle"),
        (3, {"policy": "full", "warmup_cycles": 2}, ""),
        (3, {"policy": "random", "keep": 1.0, "anneal": 1.0}, ""),
        (4, {"time": TimeDroppingOptions("chunk")}, "drops no time"),
        (12, {"time": TimeDroppingOptions("point"), "cycle": 3}, "drops no time"),
        (12, {"time": TimeDroppingOptions("point")}, ""),
        (6, {"policy": "full", "time": TimeDroppingOptions("point")}, ""),
    ],
)
def test_options_without_effect_are_named(epochs, values, found):
    options = DataPruningOptions(**{"policy": "hard", "keep": 0.5, **values})
    sentences = without_effect(options, epochs)
    assert len(sentences) == bool(found) and found in "".join(sentences)
    drops = any(drops for _, drops in kept_shares(options, epochs))
    assert drops == (options.time.variant != "none" and "drops no time" not in found)


@pytest.mark.parametrize("policy", EMERGENT_SHARES)
@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_emergent_budgets_are_foretold_for_log_normal_losses(policy, keep):
    index = make_index(np.full(20000, 5.0))
    options = DataPruningOptions(policy=policy, keep=keep, detrend=False, max_age=0)
    scores, history = ScoreTable(len(index), detrend=False), History(len(index))
    everything = np.arange(len(index))
    scores.add(everything, np.random.default_rng(0).lognormal(0, 0.8, len(index)))
    scores.merge(scores.pending())
    kept = [make_plan(index, scores, options, 0, c, 20, history).keep.mean() for c in range(1, 7)]
    assert planned_shares(options, 20)[2] == pytest.approx(np.mean(kept), abs=0.03)
