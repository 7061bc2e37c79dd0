"""``asrprune train`` from end to end: what it leaves, what it refuses, how it stops and goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from lhotse import CutSet, NumpyFilesWriter

from asrprune.base.files import read_json, write_json
from asrprune.base.locks import open_locked
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.trainer import Trainer
from tests.training.command import ROOT, assert_same, assert_same_training, make_command, run_python

FULL_DISK = """
import resource, sys
from asrprune import cli
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = ["asrprune", *sys.argv[2:]]
sys.exit(cli.main())
"""

DRY_RUN = """
import sys
from asrprune import cli
assert cli.main(sys.argv[1:]) == 0
heavy = {"lhotse", "sentencepiece"} & set(sys.modules)
assert not heavy, heavy
"""


def metrics_of(command) -> dict[str, list[int]]:
    """Steps of each kind of line in ``metrics.jsonl``, in the order of the file."""
    steps: dict[str, list[int]] = {}
    for line in (command.exp / "log" / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        steps.setdefault(entry["kind"], []).append(entry["step"])
    return steps


def visible(folder) -> list[tuple[str, bytes]]:
    """The files of a folder."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != ".lock"]
    return sorted((path.name, path.read_bytes()) for path in paths)


def start_over_from(command, source, *names: str) -> None:
    """Give a command the files ``names`` of another one's folder."""
    command.exp.mkdir(exist_ok=True)
    for name in names:
        shutil.copy(source.exp / name, command.exp)


def interrupted(command, step: int, *words) -> int:
    """Train in this process up to a Ctrl-C before step ``step``; returns the step it stopped at."""

    def stepping(trainer, *args):
        if trainer.position.step == step:
            os.kill(os.getpid(), signal.SIGINT)
        return original(trainer, *args)

    original = Trainer.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stepping)
        assert command(*words) == 130
    return command.last()["position"]["step"]


def test_what_a_training_leaves(whole_run):
    last = whole_run.last()
    steps = last["position"]["step"]
    per_epoch = steps // 2
    assert last["position"] == {"epoch": 3, "batches": 0, "seconds": 0.0, "step": steps}
    assert whole_run.names("epoch") == ["epoch-1.pt", "epoch-2.pt"]
    assert whole_run.names("checkpoint") == [
        f"checkpoint-{n}.pt" for n in (steps - 2 + steps % 2, steps)
    ]
    assert load_checkpoint(whole_run.exp / "epoch-1.pt")["position"]["step"] == per_epoch
    assert metrics_of(whole_run) == {
        "pruning": [0, per_epoch],
        "train": list(range(1, steps + 1)),
        "seen": [per_epoch, steps],
        "time": [per_epoch, steps],
        "dev": [per_epoch, steps],
    }
    assert list((whole_run.exp / "tensorboard").iterdir())
    assert not list(whole_run.exp.glob(".tmp*"))


def test_saved_config_trains_the_same_thing(whole_run):
    from asrprune.config import config_from_dict, load_config

    saved = load_config(whole_run.exp / "config.yaml")
    assert saved == load_config(whole_run.config)
    assert saved == config_from_dict(whole_run.last()["config"])


def test_run_sh_repeats_the_command(whole_run, train_command, tmp_path, monkeypatch):
    odd = tmp_path / "it's a $(folder)"
    odd.mkdir()
    monkeypatch.chdir(odd)
    train_command.exp = odd / "exp; exit 9"
    assert train_command("--epochs", 1) == 0
    fakes = tmp_path / "bin"
    fakes.mkdir()
    (fakes / "asrprune").write_text(
        f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), *sys.argv[1:]]))"
    )
    (fakes / "asrprune").chmod(0o755)
    copy = tmp_path / "a copy"
    shutil.copytree(train_command.exp, copy)
    for folder in (train_command.exp, copy):  # each goes on in itself
        assert os.access(folder / "run.sh", os.X_OK)
        done = subprocess.run(
            [folder / "run.sh", "--epochs", "5"], capture_output=True, text=True, cwd="/",
            env={**os.environ, "PATH": f"{fakes}:{os.environ['PATH']}"},
        )  # fmt: skip
        words = train_command.words("--epochs", 1)
        words.remove("--exp-dir"), words.remove(str(train_command.exp))
        words += ["--exp-dir", str(folder), "--epochs", "5"]
        assert json.loads(done.stdout) == [str(odd), *words], done.stderr


def test_run_sh_needs_no_environment(train_command, monkeypatch):
    """As one calls it who has not activated any; here from the middle of an epoch, on two ranks."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    step = interrupted(train_command, 2, "--epochs", 1)
    done = subprocess.run(
        [train_command.exp / "run.sh", "--world-size", "2"], capture_output=True, text=True,
        cwd="/", env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the number of ranks (1 -> 2) changed: weights and schedule are kept" in done.stderr
    after = train_command.last()
    assert after["world_size"] == 2 and after["position"]["epoch"] == 2
    assert after["position"]["step"] > step
    again = (train_command.exp / "run.sh").read_text()
    assert again.count("--exp-dir") == 1 and '--world-size 2 --exp-dir "$exp_dir"' in again


def test_log_says_what_the_run_was_made_with(train_command):
    assert train_command("--epochs", 1) == 0
    log = (train_command.exp / "log" / "train.log").read_text()
    for part in (torch.__version__.split("+")[0], "git:", "corpus: tones", "36 cuts", "parameters"):
        assert part in log
    assert "epoch 1 of 1" in log and "dev loss dev" in log and "trained 1 epochs" in log


def test_a_second_call_changes_nothing_and_more_epochs_go_on(train_command, caplog):
    assert train_command() == 0
    before, files = train_command.last(), sorted(train_command.exp.glob("*.pt"))
    caplog.clear()
    assert train_command() == 0
    assert "trained 2 epochs" in caplog.text
    assert_same(train_command.last(), before)
    assert sorted(train_command.exp.glob("*.pt")) == files
    assert train_command("--epochs", 3) == 0
    after = train_command.last()
    assert train_command.names("epoch") == ["epoch-1.pt", "epoch-2.pt", "epoch-3.pt"]
    assert after["position"]["epoch"] == 4
    steps = metrics_of(train_command)["train"]
    assert steps == list(range(1, after["position"]["step"] + 1))
    # fewer epochs than were trained: nothing to do, nothing lost
    assert train_command("--epochs", 1) == 0
    assert_same_training(train_command.last(), after)


def test_more_epochs_mean_a_higher_rate_from_where_it_stood(train_command, tmp_path):
    step = interrupted(train_command, 2)
    first = train_command.last()["optimizer"]["param_groups"][0]["lr"]
    rates, stopped = {}, train_command.exp
    for epochs in (2, 4):
        folder = tmp_path / str(epochs)
        shutil.copytree(stopped, folder)
        train_command.exp = folder
        assert train_command("--epochs", epochs) == 0
        lines = (folder / "log" / "metrics.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in lines]
        rates[epochs] = [e["lr"] for e in lines if e["kind"] == "train" and e["step"] > step]
    assert first > 0
    assert all(more > less for more, less in zip(rates[4], rates[2], strict=False))


IDENTITY = [
    (("seed=43",), r"seed \(42 -> 43\)"),
    (("training.optimizer.lr=0.1",), r"training.optimizer.lr \(0.001 -> 0.1\)"),
    (("model.joiner_dim=32",), r"model.joiner_dim \(16 -> 32\)"),
    (("model.encoder_options.num_layers=2",), r"model.encoder_options \(.*'num_layers': 1.* -> "),
    (("data.spec_augment.probability=0",), r"data.spec_augment.probability \(0.9 -> 0.0\)"),
]


@pytest.mark.parametrize("words, text", IDENTITY)
def test_identity_options_are_refused(words, text, whole_run, train_command, capsys):
    start_over_from(train_command, whole_run, "epoch-1.pt")
    before = visible(train_command.exp)
    assert train_command(*words) == 1
    error = capsys.readouterr().err
    assert re.search(text, error), error
    assert "another --tag" in error and str(train_command.exp) in error
    assert visible(train_command.exp) == before


def test_all_refused_changes_are_named_at_once(whole_run, train_command, tmp_path, capsys):
    start_over_from(train_command, whole_run, "epoch-1.pt")
    corpus = tmp_path / "corpus"
    shutil.copytree(whole_run.corpus.manifests, corpus / "valid")
    shutil.copytree(whole_run.corpus.lang, corpus / "lang")
    statistics = read_json(corpus / "valid" / "tones_statistics.json")
    statistics["train"]["digest"] = "other"
    write_json(corpus / "valid" / "tones_statistics.json", statistics)
    tokens = corpus / "lang" / "tokens.txt"
    lines = tokens.read_text().splitlines()
    tokens.write_text("\n".join([*lines[:-1], f"q {len(lines) - 1}"]) + "\n")
    train_command.options = ("--manifest-dir", corpus / "valid", "--lang-dir", corpus / "lang")
    train_command.options = tuple(map(str, train_command.options))
    assert train_command("seed=1") == 1
    error = capsys.readouterr().err
    for part in ("seed (42 -> 1)", "the training data", "the tokenizer"):
        assert part in error


@pytest.mark.parametrize(
    "words", [("--max-duration", "9"), ("data.lazy=true",), ("training.grad_accumulation=2",)]
)
def test_other_batches_start_the_epoch_again(words, train_command, caplog):
    step = interrupted(train_command, 2)
    stood = train_command.last()
    assert stood["position"]["batches"] == step
    seen = []

    def record(trainer, *_):
        seen.append((dict(vars(trainer.position)), trainer.state_dict()["model"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "run", lambda t: record(t) or 0)
        assert train_command(*words) == 0
    [(position, weights)] = seen
    assert position == {"epoch": 1, "batches": 0, "seconds": 0.0, "step": step}
    assert_same(dict(weights), dict(stood["model"]))
    assert "changed: weights and schedule are kept, and epoch 1 starts again" in caplog.text
    assert train_command(*words) == 0
    assert train_command.last()["position"]["epoch"] == 3


def test_another_number_of_ranks_starts_the_epoch_again(train_command, caplog):
    interrupted(train_command, 2)
    path = numbered(train_command.exp, "checkpoint")[-1]
    torch.save({**torch.load(path, weights_only=True), "world_size": 4}, path)
    assert train_command() == 0
    assert "the number of ranks (4 -> 1) changed" in caplog.text
    assert train_command.last()["position"]["epoch"] == 3


def test_resumable_options_change_in_silence(train_command, caplog, whole_run):
    interrupted(train_command, 2)
    words = ("data.num_workers=1", "training.log_interval=2", "training.checkpoint_interval=3")
    assert train_command(*words) == 0
    assert "changed" not in caplog.text
    assert_same_training(train_command.last(), whole_run.last())


def test_a_damaged_checkpoint_is_passed_over(train_command, whole_run, caplog):
    start_over_from(train_command, whole_run, *whole_run.names("checkpoint"))
    *_, before, last = numbered(train_command.exp, "checkpoint")
    os.truncate(last, 2000)
    assert train_command() == 0
    assert f"{last.name} is damaged" in caplog.text and f"going on from {before}" in caplog.text
    assert_same_training(train_command.last(), whole_run.last())


def test_an_epoch_removed_by_hand_is_made_again(train_command, whole_run):
    last = whole_run.names("checkpoint")[-1]
    start_over_from(train_command, whole_run, "epoch-1.pt", last)
    assert train_command() == 0
    assert train_command.names("epoch") == ["epoch-1.pt", "epoch-2.pt"]
    assert_same_training(load_checkpoint(train_command.exp / "epoch-2.pt"), whole_run.last())


def test_two_trainings_in_one_folder(train_command, capsys):
    with open_locked(train_command.exp / ".lock", "nobody else"):
        assert train_command() == 1
        assert "another training is running in" in capsys.readouterr().err
    assert train_command("--epochs", 1) == 0


def test_bad_options_are_refused_before_anything_is_written(train_command, capsys):
    cases = {
        "training.epoch=3": "did you mean 'epochs'",
        ("--epochs", 2, "training.epochs=3"): "--epochs and training.epochs= say the same: leave",
        "training.epochs=many": "training.epochs",
        "model.encoder_options.dimm=3": "did you mean 'dim'",
        "data.corpus=birds": "birds_cuts_train.jsonl.gz does not exist; the validate stage (3)",
        "data.corpus=''": "data.corpus is not set",
        "training.optimizer.betas=[0.9,1.5]": "training.optimizer: Invalid beta",
        "training.optimizer.betas=[0.9]": "training.optimizer: ",
        "data.dev=[nowhere]": "tones_cuts_nowhere.jsonl.gz does not exist",
    }
    for word, text in cases.items():
        assert train_command(*([word] if isinstance(word, str) else word)) == 1
        error = capsys.readouterr().err
        assert text in error and "Traceback" not in error, error
        assert not train_command.exp.exists() or not visible(train_command.exp)


def test_a_cut_that_is_not_a_number_stops_it(train_command, tmp_path, capsys, whole_run):
    source = whole_run.corpus.manifests
    manifests = tmp_path / "valid"
    shutil.copytree(source, manifests)
    cuts = CutSet.from_file(source / "tones_cuts_train.jsonl.gz").to_eager()
    victim = cuts[10]
    features = victim.load_features()
    features[5:9] = np.nan
    writer = NumpyFilesWriter(tmp_path / "nan")
    victim.features.storage_type = writer.name
    victim.features.storage_key = writer.write("nan", features)
    victim.features.storage_path = str(writer.storage_path)
    cuts.to_file(manifests / "tones_cuts_train.jsonl.gz")
    train_command.options = ("--manifest-dir", str(manifests))
    assert train_command("training.checkpoint_interval=1") == 1
    error = capsys.readouterr().err
    assert f"the loss is not finite for cut {victim.id}. Nothing was updated." in error
    log = (train_command.exp / "log" / "train.log").read_text()
    assert victim.id in log and "Traceback" not in log + error
    state = train_command.last()
    assert all(torch.isfinite(value).all() for value in state["model"].values())


INTERRUPTS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize("number, status", INTERRUPTS)
def test_interrupted_by_a_signal_to_the_process_group(
    number, status, tiny_corpus, tmp_path, whole_run
):
    command = make_command(tmp_path, tiny_corpus, data__num_workers=1)
    done = command.killed(number, 3, group=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "saved checkpoint-5.pt; the same command goes on from there" in done.stderr
    assert command.names("checkpoint") == ["checkpoint-4.pt", "checkpoint-5.pt"]
    assert command() == 0
    assert_same_training(command.last(), whole_run.last())
    assert metrics_of(command) == metrics_of(whole_run)


def test_killed_at_once(tiny_corpus, tmp_path, whole_run):
    command = make_command(tmp_path, tiny_corpus)
    done = command.killed(signal.SIGKILL, 7)
    assert done.returncode == -signal.SIGKILL
    assert command.names("checkpoint") == ["checkpoint-4.pt", "checkpoint-6.pt"]
    assert metrics_of(command)["train"][-1] == 7
    assert command() == 0
    assert_same_training(command.last(), whole_run.last())
    assert metrics_of(command) == metrics_of(whole_run)
    assert not list(command.exp.glob(".tmp*"))


def test_full_disk(train_command, whole_run):
    start_over_from(train_command, whole_run, "epoch-1.pt")
    before = visible(train_command.exp)
    limit = len(before[0][1]) // 2
    done = run_python("-c", FULL_DISK, str(limit), *train_command.words())
    assert done.returncode == 1
    step = whole_run.last()["position"]["step"] // 2
    step += 2 - step % 2  # the first one due in the second epoch
    path = train_command.exp / f"checkpoint-{step}.pt"
    assert f"error: cannot write {path}: File too large" in done.stderr
    assert "Free some space and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert [entry for entry in visible(train_command.exp) if entry[0].endswith(".pt")] == before
    assert train_command() == 0
    assert_same_training(train_command.last(), whole_run.last())


def test_a_dry_run_reads_no_data_and_lays_out_the_model(train_command, capsys):
    done = run_python("-c", DRY_RUN, *train_command.words("--dry-run", "true", "--world-size", 2))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"{re.escape(str(train_command.config))}: ok, 0.[0-9] M parameters for 500 symbols\n",
        done.stdout,
    )
    for word, message in (
        ("training.epochz=3", "unknown key 'training.epochz' (did you mean 'epochs'?)"),
        (
            "model.encoder_options.dmi=8",
            "encoder_options.dmi: unknown option (did you mean 'dim'?)",
        ),
        ("loss.lm_scale=1 loss.am_scale=1", "their sum must be at most 1"),
        (
            "weight_pruning.method=gradual weight_pruning.block=15x1",
            "weight_pruning.block=15x1 does not divide encoder.layers.0",
        ),
    ):
        assert train_command("--dry-run", "true", *word.split()) == 1
        assert message in capsys.readouterr().err
    assert train_command("--dry-run", "true", "weight_pruning.method=gradual") == 0
    _, *table = capsys.readouterr().out.splitlines()
    assert table[0] == "| parameter | shape | elements | pruned as |"
    assert any(row.endswith(" | linear |") for row in table)
    assert any(row.endswith(" | no: embedding |") for row in table)
    assert not train_command.exp.exists()


@pytest.mark.parametrize("start_epoch", [1, 2])
def test_an_epoch_is_trained_again(start_epoch, train_command, whole_run, capsys):
    start_over_from(train_command, whole_run, *whole_run.names("epoch"))
    words = ("--start-epoch", start_epoch, "training.optimizer.lr=7e-3")
    if start_epoch > 1:  # the rest of a training keeps to its identity
        assert train_command(*words) == 1
        assert "belongs to another training; changed: training.optimizer.lr" in (
            capsys.readouterr().err
        )
        words = words[:2]
    whole = whole_run.last()["position"]["step"]
    assert interrupted(train_command, (start_epoch - 1) * whole // 2 + 3, *words) < whole
    kept = train_command.names("epoch") + [path.name for path in train_command.exp.glob("*.old")]
    assert {"epoch-1.pt", "epoch-2.pt"} <= {name.removesuffix(".old") for name in kept}
    # the same command goes on, and does not go back once more
    reached = train_command.last()["position"]["step"]
    assert train_command(*words) == 0
    log = (train_command.exp / "log" / "train.log").read_text()
    assert f"going on from {train_command.exp}/checkpoint-{reached}.pt" in log
    again = train_command.last()
    if start_epoch > 1:
        assert_same_training({**again, "start_epoch": 0}, whole_run.last())
    else:
        assert again["config"]["training"]["optimizer"]["lr"] == 7e-3
    steps = metrics_of(train_command)["train"]
    assert steps == list(range(steps[0], again["position"]["step"] + 1))


def test_an_epoch_that_cannot_be_gone_back_to(train_command, whole_run, capsys):
    assert train_command("--start-epoch", 2) == 1
    assert "--start-epoch 2: there is no checkpoint in" in capsys.readouterr().err
    start_over_from(train_command, whole_run, "epoch-1.pt", "epoch-2.pt")
    before = visible(train_command.exp)
    assert train_command("--start-epoch", 4) == 1
    assert "epoch-3.pt does not exist; there are: epoch-1, epoch-2" in capsys.readouterr().err
    assert [file for file in visible(train_command.exp) if file[0].endswith(".pt")] == before
