"""What a training costs: measured where it can be, else computed from that."""

import re

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut

from asrprune import cli
from asrprune.bench.recipe import _dropped, _stored, measure, trained_share
from asrprune.config import save_config
from asrprune.data.batches import SpeechDataset
from asrprune.data.tokenizer import CharacterTokenizer
from asrprune.training.distributed import Ranks
from asrprune.training.pruning import make_pruning_sampler
from tests.conftest import tiny_config
from tests.transducer.tiny_encoder import Trimmer

ALONE = Ranks(0, 1, torch.device("cpu"))


def config_of(corpus, **options):
    return tiny_config(corpus, data__max_duration=20.0, data__noise={}, **options)


@pytest.mark.parametrize("epochs", [16, 20])
@pytest.mark.parametrize(
    "pruning",
    [
        {},
        {"policy": "random", "keep": 0.5},
        {"policy": "easy2hard", "keep": 0.7, "policy_options": {"mode": "window"}, "cycle": 2},
        {"policy": "hard", "keep": 0.6, "anneal": 0.0, "warmup_cycles": 2, "max_age": 0},
    ],
)
def test_the_share_that_is_trained_on(pruning, epochs, tiny_corpus):
    """As a sampler plans it, epoch by epoch."""
    config = config_of(tiny_corpus, training__epochs=epochs, data_pruning=pruning)
    cuts = CutSet.from_cuts(MonoCut(f"cut-{n}", 0.0, 2.0, 0) for n in range(60))
    dataset = SpeechDataset(CharacterTokenizer(["<blk>", "<sos/eos>", "<unk>"], ""))
    sampler = make_pruning_sampler(cuts, [2.0], config, ALONE, dataset)
    random, shares = np.random.default_rng(0), []
    for epoch in range(1, epochs + 1):
        sampler.set_epoch(epoch)
        shares.append(sampler.plan.report["seconds"])
        for batch in sampler:
            names = [cut.id for cut in batch]
            sampler.update(names, torch.tensor(random.random(len(names))), torch.ones(len(names)))
    share, time = trained_share(config)
    assert share == time == pytest.approx(np.mean(shares), abs=0.02)


def test_policies_that_decide_how_much_they_keep_and_time_that_is_dropped(tiny_corpus):
    time = {"variant": "point"}
    pruning = {"policy": "infobatch", "keep": 0.7, "time": time}
    config = config_of(tiny_corpus, training__epochs=30, data_pruning=pruning)
    share, of_time = trained_share(config, 0.7)
    # 1 epoch of warm-up and 4 at the end train on everything; 9 of 30 drop time, in 0.7 of the time
    assert share == pytest.approx((5 + 25 * 0.805) / 30)
    assert of_time == pytest.approx((5 + 16 * 0.805 + 9 * 0.805 * 0.7) / 30)
    assert trained_share(config) == (share, share)


def test_what_is_measured(tiny_corpus):
    time = {"variant": "chunk", "drop_ratio": 0.5}
    pruning = {"policy": "random", "keep": 0.5, "time": time}
    cost = measure(config_of(tiny_corpus, data_pruning=pruning), ALONE, 3)
    # medians of three, on a machine that does other things too
    assert 0 < cost.losses["torch"] < 3 * cost.step and set(cost.losses) <= {"torch", "k2"}
    assert cost.memory is cost.busy is None
    assert 0 < cost.dropping < 3
    assert cost.speed == pytest.approx(20 / cost.step, rel=1.0)
    # weights, two moments and a mean in double precision, at the least
    assert 20 * cost.parameters < cost.checkpoint < 40 * cost.parameters
    assert measure(config_of(tiny_corpus), ALONE, 1).dropping is None


def test_half_of_the_frames_are_dropped(tiny_corpus):
    time = {"variant": "chunk", "drop_ratio": 0.5, "level": "samples"}
    pruning = {"policy": "random", "keep": 0.5, "time": time}
    config = config_of(tiny_corpus, data_pruning=pruning)
    batch = {
        "features": torch.randn(3, 1000, 80),
        "cut_ids": ["a", "b", "c"],
        "token_lens": torch.tensor([10, 20, 30]),
    }
    [shorter] = _dropped(config, Trimmer(80), [batch])
    assert shorter["feature_lens"].tolist() == [500] * 3
    assert shorter["features"].shape == (3, 500, 80)


def test_stored_bytes():
    state = {"a": [torch.zeros(3), (torch.zeros(2, dtype=torch.float64), "word")], "b": 7}
    assert _stored(state) == 12 + 16


def test_a_row_for_each_config(tiny_corpus, tmp_path, capsys):
    paths = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for path in paths:
        save_config(config_of(tiny_corpus), path)
    words = ["bench", "recipe", "--config", *map(str, paths), "--steps", "1", "--hours", "10"]
    assert cli.main([*words, "--speed-perturb", "false", "training.epochs=5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines[:4]]
    for path, row in zip(paths, rows, strict=True):
        told = dict(zip(header, row, strict=True))
        assert told["configuration"] == str(path)
        assert told["hours of speech"] == "50 computed"
        assert told["features"] == "0.3 GB computed"
        assert float(told["speed"].split()[0]) > 1
    assert re.fullmatch(r"no GPU was used: CPU, 1 threads, torch .*", lines[-1])
    assert cli.main([*words, "--steps", "0"]) == 1
    assert "--steps: at least 1" in capsys.readouterr().err
