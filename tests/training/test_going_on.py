"""Going on as people mean it: with a checkpoint of somebody else's, and from its weights alone."""

import logging
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrprune import cli
from asrprune.base.files import read_json, write_json
from asrprune.training.checkpoint import load_checkpoint, numbered
from tests.training.command import assert_same, assert_same_training, make_command


@pytest.fixture
def mine(tmp_path, tiny_corpus) -> SimpleNamespace:
    """The same corpus, prepared elsewhere: not one path is the same."""
    folder = tmp_path / "my data"
    shutil.copytree(tiny_corpus.manifests, folder / "valid")
    shutil.copytree(tiny_corpus.lang, folder / "lang")
    paths = {"manifests": folder / "valid", "lang": folder / "lang"}
    return SimpleNamespace(**{**vars(tiny_corpus), **paths})


def change_data(corpus) -> None:
    """Other texts, as far as a training can tell before it reads them."""
    path = corpus.manifests / "tones_statistics.json"
    statistics = read_json(path)
    statistics["train"]["digest"] = "other"
    write_json(path, statistics)


@pytest.mark.parametrize("what", ["folder", "checkpoint", "epoch"])
def test_with_the_training_of_somebody_else(what, mine, tmp_path, whole_run, caplog):
    """Their folder, or a file of it: it goes on to the bits that they would have come to."""
    caplog.set_level(logging.INFO)
    command = make_command(tmp_path, mine)
    name = whole_run.names("checkpoint")[0] if what == "checkpoint" else "epoch-1.pt"
    command.exp.mkdir()
    shutil.copy(whole_run.exp / name, command.exp)
    if what == "folder":
        shutil.copytree(whole_run.exp / "log", command.exp / "log")
        command.config = Path(shutil.copy(whole_run.exp / "config.yaml", command.exp))
    assert command() == 0
    assert f"going on from {command.exp / name}: epoch" in caplog.text
    assert_same_training(command.last(), whole_run.last())


def test_on_other_data_its_weights_are_what_is_left(mine, tmp_path, whole_run, capsys):
    """What refuses to go on says how to start from the weights, and that does."""
    command = make_command(tmp_path, mine)
    change_data(mine)
    shutil.copytree(whole_run.exp, command.exp)
    assert command() == 1
    error = capsys.readouterr().err
    assert "belongs to another training; changed: the training data. Choose another --tag" in error
    [start] = re.findall(r"with --init-from (\S+), from its weights", error)
    assert start == str(numbered(whole_run.exp, "checkpoint")[-1]).replace(
        str(whole_run.exp), str(command.exp)
    )
    command.exp = tmp_path / "beside"
    before = [path.read_bytes() for path in sorted((tmp_path / "exp").glob("*.pt"))]
    assert command("--init-from", start, "--epochs", 1) == 0
    assert command.last()["config"]["training"]["init_from"] == start
    assert command.last()["position"]["step"] == whole_run.last()["position"]["step"] // 2
    assert before == [path.read_bytes() for path in sorted((tmp_path / "exp").glob("*.pt"))]


def test_a_file_of_another_toolkit_is_not_gone_on_from(train_command, whole_run, capsys):
    train_command.exp.mkdir()
    torch.save({"model": whole_run.last()["model"]}, train_command.exp / "epoch-30.pt")
    assert train_command() == 1
    assert "none of the 1 checkpoints in" in capsys.readouterr().err
    assert train_command("--init-from", train_command.exp / "epoch-30.pt") == 1
    train_command.exp = train_command.exp.with_name("new")
    assert train_command("--init-from", train_command.exp.with_name("exp") / "epoch-30.pt") == 1
    assert "epoch-30.pt is damaged, or no model of this version" in capsys.readouterr().err


def test_init_from_is_an_option_and_a_word(train_command, whole_run, tmp_path, capsys, caplog):
    plain, odd = tmp_path / "plain.pt", tmp_path / "it's: [my] #1 model.pt"
    folder = str(whole_run.exp)
    assert cli.main(["average", "--exp-dir", folder, "--output", str(plain)]) == 0
    shutil.copy(plain, odd)
    assert train_command("--init-from", odd, f"training.init_from={plain}") == 1
    message = "--init-from and training.init_from= say the same: leave one of them out"
    assert message in capsys.readouterr().err
    states = []
    for path, words in ((odd, ("--init-from", odd)), (plain, (f"training.init_from={plain}",))):
        train_command.exp = tmp_path / path.stem
        assert train_command(*words, "--epochs", 1) == 0
        states.append(train_command.last()["model"])
        assert f"starting from {path}: all of its" in caplog.text
    assert_same(*states)


def test_a_dry_run_sees_whether_it_fits(train_command, whole_run, capsys):
    """Before hours of features; a file that is still to come is no mistake."""
    start = whole_run.exp / "epoch-1.pt"
    dry = ("--dry-run", "true", "--init-from")
    assert train_command(*dry, start) == 0
    assert train_command(*dry, "exp/to/come.pt") == 0
    assert train_command(*dry, start, "model.encoder_options.num_layers=2") == 1
    assert "is of another shape: encoder.layers.1" in capsys.readouterr().err
    assert train_command(*dry, train_command.config) == 1
    assert "tiny.yaml is damaged, or no model" in capsys.readouterr().err
    assert train_command("--dry-run", "true", "training.freeze=[encoder.layer.0]") == 1
    assert "named 'encoder.layer.0' (did you mean 'encoder.layers.0'?)" in capsys.readouterr().err
    assert not train_command.exp.exists()


def test_a_frozen_training_says_so(train_command, whole_run, caplog):
    words = ("training.freeze=[encoder.embed,encoder.layers.0]", "--epochs", 1)
    assert train_command("--init-from", whole_run.exp / "epoch-2.pt", *words) == 0
    before, after = load_checkpoint(whole_run.exp / "epoch-2.pt")["model"], train_command.last()
    frozen = ("encoder.embed.", "encoder.layers.0.")
    for name, value in after["average"]["mean"].items():
        same = torch.equal(value, before[name].double())
        assert same == name.startswith(frozen), name
    count = sum(value.numel() for name, value in before.items() if name.startswith(frozen))
    assert f"frozen: {count:,} of them, ['encoder.embed', 'encoder.layers.0']" in caplog.text
    assert "without training.init_from" not in caplog.text
    train_command.exp = train_command.exp.with_name("fresh")
    assert train_command(*words) == 0
    assert "training.freeze without training.init_from: they stay as initialised" in caplog.text
