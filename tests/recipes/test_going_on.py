"""Going on and fine-tuning: each command of the guide, and both once for real at tiny size."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asrprune import cli
from asrprune.config import load_config, save_config
from asrprune.training.checkpoint import load_checkpoint
from tests.conftest import tiny_config
from tests.recipes.conftest import LIBRISPEECH, Recipe, copy_recipe

ROOT = Path(__file__).parents[2]
GUIDE = (LIBRISPEECH / "README.md").read_text("utf-8")
GUIDE = GUIDE[GUIDE.index("\n## Going on\n") : GUIDE.index("\n## Trouble\n")]


def commands() -> list[str]:
    """Of the guide's tables; what is to be added to a command, with the command before."""
    found, base = [], ""
    for row in GUIDE.splitlines():
        if not row.startswith("| ") or row.startswith("| I want"):
            continue
        code = re.findall("`([^`]+)`", row.split(" | ")[1])
        if code and code[0].startswith("./run.sh"):
            base = code[0]
            found += [word for word in code if word.startswith("./run.sh")]
        elif code and " add `" in row:
            found.append(f"{base} {code[0]}")
    return found


def test_the_guide_has_commands():
    assert len(commands()) == len(set(commands())) == 14
    assert set(re.findall("`(exp/[^`]+run.sh[^`]*)`", GUIDE)) == {
        "exp/conformer/run.sh", "exp/conformer/run.sh --epochs 40"
    }  # fmt: skip


@pytest.fixture
def guided(tmp_path) -> Recipe:
    """The recipe with its real configurations, a model and a training of somebody else's."""
    recipe = copy_recipe(tmp_path, LIBRISPEECH)
    for path in LIBRISPEECH.glob("conf/*.yaml"):
        shutil.copy(path, recipe.folder / "conf")
    theirs = tmp_path / "theirs" / "exp" / "conformer"
    theirs.mkdir(parents=True)
    for name in ("averaged.pt", "bpe.model", "exp/conformer/epoch-1.pt"):
        (tmp_path / "theirs" / name).write_text("made\n")
    save_config(load_config(LIBRISPEECH / "conf" / "conformer.yaml"), theirs / "config.yaml")
    return recipe


def train_words(recipe: Recipe) -> list[str]:
    """Those of the one training that was tried since the last look at the log."""
    lines = [line for line in recipe.log.read_text().splitlines() if " train " in line]
    recipe.log.write_text("")
    [line] = lines
    return shlex.split(line)[1:]


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_guide_is_one(command, guided, monkeypatch, capsys):
    """The recipe takes it, and so does the training that it would start."""
    words = shlex.split(command.replace("/theirs/", f"{guided.root}/theirs/"))[1:]
    guided.run(*words, "--dry-run", "true")
    training = [word.replace(f"{guided.root}/theirs/", "/theirs/") for word in train_words(guided)]
    monkeypatch.chdir(guided.folder)
    assert cli.main(training) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.startswith("conf/conformer.yaml: ok, ")
    assert ("--init-from /theirs/averaged.pt" in " ".join(training)) == ("--init-from" in words)


def test_somebody_elses_folder(guided, monkeypatch, capsys):
    [block] = re.findall("```bash\n(.*?)```", GUIDE, re.DOTALL)
    copy, command = block.replace(" /theirs/", f" {guided.root}/theirs/").strip().splitlines()
    subprocess.run(["bash", "-ec", copy], cwd=guided.folder, check=True)
    assert (guided.folder / "exp" / "theirs" / "epoch-1.pt").exists()
    guided.run(*shlex.split(command)[1:], "--dry-run", "true")
    words = train_words(guided)
    assert words[words.index("--exp-dir") + 1] == "exp/theirs"
    monkeypatch.chdir(guided.folder)
    assert cli.main(words) == 0, capsys.readouterr().err


def test_a_model_to_start_from(librispeech):
    rehearsal = ("--rehearsal", "true")
    told = librispeech.run(*rehearsal, "--init-from", "nothing.pt", code=2)
    assert "error: --init-from: nothing.pt does not exist" in told.stderr
    assert librispeech.commands() == []
    librispeech.run(*rehearsal)
    start = librispeech.folder / "start.pt"
    start.touch()
    librispeech.commands()
    told = librispeech.run(*rehearsal, "--init-from", "start.pt")
    assert "stage 5 (train) runs again: --init-from was '', is 'start.pt'" in told.stderr
    [line] = [x for x in librispeech.log.read_text().splitlines() if " train --config" in x
              and "--dry-run" not in x]  # fmt: skip
    assert " --init-from start.pt data.dev=[dev-clean]" in line
    librispeech.commands()
    start.unlink()  # a training that has begun needs it no more
    librispeech.run(*rehearsal, "--init-from", "start.pt", "--avg", "1")
    assert librispeech.commands()[0] == "asrprune average"


def test_the_second_training_starts_from_the_first_one(commonvoice):
    start = commonvoice.folder / "start.pt"
    start.touch()
    told = commonvoice.run("--langs", "en", "--dry-run", "true", "--init-from", "start.pt").stdout
    dense, pathways = [line for line in told.splitlines() if line.startswith("asrprune train")]
    assert "--init-from start.pt" in dense and "training.init_from" not in dense
    assert "--init-from" not in pathways
    assert "training.init_from=exp/emformer_streaming/averaged.pt" in pathways
    checked = [line for line in commonvoice.log.read_text().splitlines() if " train " in line]
    assert ["--init-from start.pt" in line for line in checked] == [False, True]


def test_fine_tuning_at_tiny_size(tiny_corpus, tmp_path):
    """Train, then adapt to other symbols with a frozen part; the stages are the recipe's own."""
    recipe = copy_recipe(tmp_path, LIBRISPEECH)
    program = tmp_path / ".venv" / "bin" / "asrprune"
    program.unlink()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m asrprune.cli "$@"\n')
    program.chmod(0o755)
    config = tiny_config(tiny_corpus, data__corpus="librispeech", training__epochs=1)
    save_config(config, recipe.folder / "conf" / "tiny.yaml")
    (recipe.folder / "data" / "valid").mkdir(parents=True)
    for path in tiny_corpus.manifests.glob("tones_*"):
        name = path.name.replace("tones", "librispeech")
        shutil.copy(path, recipe.folder / "data" / "valid" / name)

    def run(*words: str) -> str:
        given = ("--config", "conf/tiny.yaml", "--train-splits", "train", "--dev-splits", "dev")
        stages = ("--test-splits", "dev", "--stage", "tokenizer", "--stop-stage", "average")
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return recipe.run(*given, *stages, *words, **environment).stderr

    run("--token-type", "char")
    start = "exp/tiny/averaged.pt"
    tuned = ("--vocab-size", "20", "--tag", "tuned", "--init-from", start)
    log = run(*tuned, "training.freeze=[encoder]", "training.optimizer.lr=1e-2")
    assert f"starting from {start}, whose tokenizer is another one: 12 of the 20 symbols" in log
    before, after = (
        load_checkpoint(recipe.folder / "exp" / tag / "averaged.pt") for tag in ("tiny", "tuned")
    )
    assert len(before["symbols"]) == 12 and len(after["symbols"]) == 20
    for name, value in before["model"].items():
        same = value.shape == after["model"][name].shape and value.equal(after["model"][name])
        assert same == name.startswith(("encoder.", "feature_")), name
