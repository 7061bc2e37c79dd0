"""Options of data pruning: what is refused, what goes together, and the presets."""

import math

import pytest

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.data_pruning.options import PRESETS, DataPruningOptions, preset

WRONG = [
    ({"keep": 0.0}, "data_pruning.keep=0.0: must be above 0 and at most 1"),
    ({"keep": -0.5}, "must be above 0"),
    ({"keep": 1.1}, "data_pruning.keep=1.1"),
    ({"keep": math.nan}, "data_pruning.keep=nan"),
    ({"policy": "easy", "keep": 0.16}, "need a keep ratio of 0.1667 or more"),
    ({"policy": "my:own", "keep": 0.3, "max_age": 1}, "need a keep ratio of 0.5000 or more"),
    ({"policy": "eazy"}, "(did you mean 'easy'?)"),
    ({"floors": {"language": 1.5}}, "floors.language=1.5: must be between 0 and 1"),
    ({"policy": "el2n"}, "Set data_pruning.score=el2n"),
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
        preset(name)["time"]["drop_ratio"] = 0.5
        assert preset(name)["time"]["drop_ratio"] == 0.3
    with pytest.raises(UserError, match="data_pruning=recomended: .* .did you mean 'recommended'"):
        preset("recomended")
