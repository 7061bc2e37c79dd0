"""One round of magnitude pruning: a model file with masks, that a training goes on from."""

import re

import pytest
import torch

from asrprune import cli
from asrprune.decoding.load import load_model
from asrprune.export.source import open_source
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from tests.training.command import assert_same


def prune(*words):
    return cli.main(["masks", *map(str, words)])


def test_a_model_without_masks(models, tmp_path):
    """Its largest blocks; the weights are all there, and it computes with what is kept."""
    path = tmp_path / "half.pt"
    assert prune("--model", models["none"], "--sparsity", 0.5, "--output", path) == 0
    before, after = load_checkpoint(models["none"]), load_checkpoint(path)
    assert_same(after["model"], before["model"])
    masks = open_source(models["none"], []).bank.masks(0.5)
    half, config = load_model(path, "cpu")
    assert config.weight_pruning.method == "gradual"
    for name, value in half.state_dict().items():
        whole = before["model"][name]
        assert value.equal(whole * masks[name] if name in masks else whole)
    again = tmp_path / "again.pt"  # the half again, after the weights have moved
    generator = torch.Generator().manual_seed(0)
    for name in masks:
        after["model"][name].normal_(generator=generator)
    save_checkpoint(after, path)
    assert prune("--model", path, "--sparsity", 0.7, "--output", again) == 0
    kept = open_source(again, []).bank.masks(0.7)
    half.load_state_dict(after["model"])
    anew = make_bank(half, config.weight_pruning)
    for name, mask in kept.items():
        assert not (mask & ~masks[name]).any() and mask.any()
    assert any(not mask.equal(anew.masks(0.7)[name]) for name, mask in kept.items())
    assert load_checkpoint(again)["masks"]["sparsity"] == 0.7


def test_words_say_how(models, tmp_path):
    path = tmp_path / "half.pt"
    words = ["--model", models["none"], "--sparsity", 0.5, "--output", path]
    assert prune(*words, "weight_pruning.block=4x1") == 0
    assert load_checkpoint(path)["masks"]["bank"]["unit"] == "4x1"


@pytest.mark.parametrize(
    "method, sparsity, message",
    [
        ("none", 1.2, "--sparsity 1.2: must be between 0 and 1"),
        ("supernet", 0.5, "is a supernet, with sub-networks of every sparsity"),
        ("gradual", 0.5, "--sparsity 0.5: the mask of .* keeps 0.200 of the weights already"),
    ],
)
def test_what_cannot_be_pruned(method, sparsity, message, models, tmp_path, capsys):
    path = tmp_path / "no.pt"
    assert prune("--model", models[method], "--sparsity", sparsity, "--output", path) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not path.exists()
