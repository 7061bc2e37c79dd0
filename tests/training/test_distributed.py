"""Several ranks train what one rank would: on gloo, through a shared file and through torchrun."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from asrprune.base.arguments import Parser
from asrprune.base.collectives import gather_from_ranks, sum_over_ranks
from asrprune.base.errors import UserError
from asrprune.data.batches import open_cuts
from asrprune.training import launch
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.distributed import Ranks, start_ranks
from asrprune.training.metrics import Meter
from asrprune.training.train import build_trainer, read_statistics
from asrprune.training.trainer import Position
from tests.conftest import tiny_config
from tests.samplers import stock_sampler
from tests.training.command import ROOT, assert_same, make_command, on_ranks, run_python, shake

ALONE = Ranks(0, 1, torch.device("cpu"))

# an encoder of the user's that asks the launcher to stop while the third batch is in the works
INTERRUPTING = """
import os, signal
from asrprune.transducer.conformer import Conformer, conformer

calls = 0

def interrupting(*args, **options):
    encoder = conformer(*args, **options)
    forward = encoder.forward
    def counting(*inputs):
        global calls
        calls += 1
        if calls == 3 and os.environ["RANK"] == "0":
            os.kill(os.getppid(), int(os.environ["SEND"]))
        return forward(*inputs)
    encoder.forward = counting
    return encoder
"""


def without_chance(corpus, **options):
    """A config without dropout, and with an Adam that does not blow up rounding errors."""
    return tiny_config(
        corpus,
        data__max_duration=14.0,
        model__encoder_options={
            **tiny_config(corpus).model.encoder_options,
            "dropout": 0.0,
        },
        training__optimizer__eps=1e-2,
        **options,
    )


def rank_main(rank: int, corpus, root: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    check_sums(ranks)
    trainer = build_trainer(without_chance(corpus), ranks, root, corpus.manifests, corpus.lang)
    shake(trainer.model)
    trainer.model.encoder.strength = 1.5 + rank  # a number that each rank has of its own
    assert trainer.run() == 0
    torch.save(dict(trainer.model.state_dict()), root / f"rank{rank}.pt")
    saved = trainer.state_dict()
    assert saved["module_values"] == [{"encoder": {"strength": 1.5 + n}} for n in (0, 1)]
    trainer.model.encoder.strength = 0.0
    trainer.load_state_dict(saved)
    assert trainer.model.encoder.strength == 1.5 + rank
    ranks.leave()


def leaving_main(rank: int, root: Path, late: int) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="3", LOCAL_RANK="0")
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    time.sleep(0.5 * (rank == late))
    times = [time.monotonic()]
    ranks.leave()
    (root / f"{rank}.json").write_text(json.dumps([*times, time.monotonic()]))


@pytest.mark.parametrize("late", [0, 2])
def test_ranks_leave_together(late, tmp_path):
    """What is over on one rank may still run on another, which fails if the first one has gone."""
    on_ranks(leaving_main, (tmp_path, late), 3)
    times = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert min(went for _, went in times) > max(came for came, _ in times)


def test_a_rank_that_fails_does_not_wait_for_others_in_nccl(monkeypatch):
    """They would wait for it, in a collective."""
    left = []
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: left.append("destroyed"))
    for backend, together, expected in (("nccl", False, []), ("gloo", False, ["destroyed"])):
        monkeypatch.setattr(dist, "get_backend", lambda backend=backend: backend)
        Ranks(1, 2, torch.device("cpu"), dist.HashStore()).leave(together)
        assert left == expected


def check_sums(ranks: Ranks) -> None:
    """Sums and broadcasts over two ranks, each of which lacks another gradient."""
    weights = [torch.nn.Parameter(torch.zeros(2, 3)) for _ in range(4)]
    for index, weight in enumerate(weights[:3]):
        if index != ranks.rank:  # two are unused on one rank, the last one on both
            weight.grad = torch.full((2, 3), 10.0**ranks.rank)
    ranks.reduce_gradients(weights)
    for weight, expected in zip(weights, (10.0, 1.0, 11.0, 0.0), strict=True):
        assert weight.grad is not None and bool((weight.grad == expected).all())
    assert ranks.total(ranks.rank, 2**40 + ranks.rank) == [1.0, 2.0**41 + 1]
    tensors = [torch.full((2,), float(ranks.rank)), torch.tensor(ranks.rank)]
    ranks.broadcast(tensors)
    assert [tensor.sum().item() for tensor in tensors] == [0, 0]


def test_two_ranks_train_what_one_rank_accumulates(tiny_corpus, tmp_path):
    on_ranks(rank_main, (tiny_corpus, tmp_path), 2)
    ranks = [torch.load(tmp_path / f"rank{n}.pt", weights_only=True) for n in (0, 1)]
    assert_same(*ranks)
    config = without_chance(tiny_corpus)
    alone = build_trainer(config, ALONE, tmp_path, tiny_corpus.manifests, tiny_corpus.lang)
    start = {name: value.clone() for name, value in shake(alone.model).state_dict().items()}
    cuts = open_cuts(tiny_corpus.manifests, "tones", "train")
    bins = read_statistics(tiny_corpus.manifests, "tones")["train"]["duration_bins"]
    samplers = [stock_sampler(cuts, bins, config.data, config.seed, rank, 2) for rank in (0, 1)]
    dev = []
    for epoch in (1, 2):
        alone.position = Position(epoch, step=alone.position.step)
        alone.data.dataset.epoch = epoch
        for sampler in samplers:
            sampler.set_epoch(epoch)
        for parts in zip(*samplers, strict=True):  # what the two have in one step
            batches = [alone.data.dataset[cuts] for cuts in parts]
            alone.step(batches, Meter(ALONE), False)
        dev.append(alone.validate()["dev"])
    two = load_checkpoint(tmp_path / "epoch-2.pt")
    assert two["position"]["step"] == alone.position.step > 4
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(two["model"][name], value, rtol=0, atol=1e-6)
        if name in two["average"]["mean"]:
            assert (value - start[name]).abs().max() > 1e-4, name  # it was trained
    lines = (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()
    lines = [json.loads(line) for line in lines]
    found = [entry["dev"] for entry in lines if entry["kind"] == "dev"]
    assert found == pytest.approx(dev, rel=1e-5)


def test_an_unused_parameter_is_treated_alike_on_one_rank():
    """Several ranks give it a gradient of zero, and its weights decay; so must one rank."""
    weight = torch.nn.Parameter(torch.ones(2))
    ALONE.reduce_gradients([weight])
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("operation", ["all_reduce", "all_gather", "broadcast", "barrier"])
def test_a_lost_rank_is_no_riddle(operation, monkeypatch):
    """The rank that failed has said why; the others must not bury it under their tracebacks."""

    def lost(*_):
        raise RuntimeError("[pair.cc:547] Connection closed by peer\nmore")

    for name in ("all_reduce", "all_gather", "broadcast", "barrier"):
        monkeypatch.setattr(torch.distributed, name, lost if name == operation else lambda *_: None)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    ranks = Ranks(1, 2, torch.device("cpu"))
    with pytest.raises(UserError, match=r"another rank has ended.* \(.*closed by peer\)$"):
        gather_from_ranks({"losses": torch.ones(2)}, 2)
        ranks.total(1)
        ranks.broadcast([torch.zeros(1)])
        ranks.barrier()


def test_a_lost_rank_is_no_riddle_to_a_sampler(monkeypatch):
    def lost(*_):
        raise RuntimeError("[pair.cc:547] Connection closed by peer\nmore")

    monkeypatch.setattr(torch.distributed, "all_reduce", lost)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    with pytest.raises(UserError, match=r"another rank has ended.* \(.*closed by peer\)$"):
        sum_over_ranks({"losses": torch.ones(2)}, 2)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="torch sees no GPU; `asrprune doctor`"):
        start_ranks("cuda")
    assert start_ranks("auto").device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UserError, match="asks for GPU number 2 of this machine, which has 1"):
        start_ranks("cuda")


def test_world_size_trains_and_stops_and_goes_on(tiny_corpus, tmp_path):
    (tmp_path / "users_encoder.py").write_text(INTERRUPTING)
    command = make_command(
        tmp_path,
        tiny_corpus,
        model__encoder="users_encoder:interrupting",
        training__epochs=1000,
    )
    done = command.spawn("--world-size", 2, path=tmp_path, SEND=str(int(signal.SIGINT)))
    assert done.returncode == 130, done.stderr
    step = command.last()["position"]["step"]
    assert done.stderr.count(f"interrupted: saved checkpoint-{step}.pt") == 1  # one speaks
    assert "Traceback" not in done.stderr
    epochs = command.last()["position"]["epoch"]
    done = command.spawn("--world-size", 2, "--epochs", epochs, path=tmp_path, SEND="0")
    assert done.returncode == 0, done.stderr
    assert f"trained {epochs} epochs" in done.stderr
    assert command.last()["world_size"] == 2
    assert command.last()["position"]["epoch"] == epochs + 1
    assert "--world-size 2" in (command.exp / "run.sh").read_text()
    done = command.spawn("--world-size", 2, "data.corpus=birds", path=tmp_path)
    assert done.returncode == 1
    assert "birds_cuts_train.jsonl.gz does not exist" in done.stderr
    assert "Traceback" not in done.stderr


# a launcher whose torchrun gives its ranks one second, and asrprune those of its first word
IMPATIENT = """
import sys
from torch.distributed.elastic.multiprocessing import PContext
from asrprune import cli
from asrprune.training import launch

PContext.close.__defaults__ = (None, 1)
launch.GRACE = int(sys.argv.pop(1))
sys.exit(cli.main())
"""
# a step in which the launcher is told twice to stop, as some batch systems do
SLOW = INTERRUPTING.replace("import os, signal", "import os, signal, time").replace(
    '            os.kill(os.getppid(), int(os.environ["SEND"]))\n',
    "            for _ in range(2):\n"
    "                os.kill(os.getppid(), signal.SIGTERM)\n"
    "                time.sleep(2.5)\n",
)


@pytest.mark.parametrize("grace, saved", [(60, True), (1, False)])
def test_ranks_that_are_told_to_end_have_time_to_save(grace, saved, tiny_corpus, tmp_path):
    """More of it than torchrun gives them, and not for ever."""
    (tmp_path / "users_encoder.py").write_text(SLOW)
    options = {"model__encoder": "users_encoder:interrupting"}
    command = make_command(
        tmp_path, tiny_corpus, training__checkpoint_interval=100, data__num_workers=1, **options
    )
    words = command.words("--world-size", 2)
    done = run_python("-c", IMPATIENT, str(grace), *words, PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert len(command.names("checkpoint")) == int(saved), done.stderr
    assert done.stderr.count("interrupted: saved checkpoint-") == int(saved)
    assert ("forcefully exiting" in done.stderr) != saved


def test_a_rank_that_is_killed(tiny_corpus, tmp_path):
    """All end within a minute and say why; the same command then ends with the same bits."""
    dying = INTERRUPTING.replace('["RANK"] == "0"', '["RANK"] == "1"').replace("getppid", "getpid")
    (tmp_path / "users_encoder.py").write_text(dying)
    options = {"model__encoder": "users_encoder:interrupting"}
    whole, killed = (make_command(tmp_path / name, tiny_corpus, **options) for name in "wk")
    assert whole.spawn("--world-size", 2, path=tmp_path, SEND="0").returncode == 0
    started = time.monotonic()
    done = killed.spawn("--world-size", 2, path=tmp_path, SEND=str(int(signal.SIGKILL)))
    assert time.monotonic() - started < 60
    assert done.returncode == 128 + signal.SIGKILL
    assert "a rank was killed by SIGKILL" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    done = killed.spawn("--world-size", 2, path=tmp_path, SEND="0")
    assert done.returncode == 0, done.stderr
    assert_same(whole.last(), killed.last())


SRUN = """#!/usr/bin/env bash
# Stands in for Slurm's: starts the command once a machine, both of which are this one.
[[ $* == "--nodes=2 --ntasks=2 --ntasks-per-node=1 --kill-on-bad-exit=1 "* ]] || exit 9
shift 4
trap 'kill -TERM $first $second' TERM
"$@" & first=$!
"$@" & second=$!
status=0
for child in $first $second; do
  while kill -0 $child 2>/dev/null; do wait $child; status=$?; done
done
exit $status
"""


def test_the_machines_of_a_slurm_job(tiny_corpus, tmp_path, monkeypatch):
    """Two machines of one rank each train what one with two does; told to end, they save first."""
    for name, text in (("srun", SRUN), ("scontrol", "#!/usr/bin/env bash\necho localhost\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "users_encoder.py").write_text(INTERRUPTING)
    options = {"model__encoder": "users_encoder:interrupting", "training__epochs": 2}
    one = make_command(tmp_path / "one", tiny_corpus, **options)
    done = one.spawn("--world-size", 2, path=tmp_path, SEND="0")
    assert done.returncode == 0, done.stderr
    many = make_command(tmp_path / "many", tiny_corpus, **options)
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "it"}
    done = many.spawn("--nodes", 2, path=tmp_path, SEND=str(int(signal.SIGTERM)), **job)
    assert done.returncode == 143, done.stderr
    assert 0 < many.last()["position"]["step"] < one.last()["position"]["step"]
    written = (many.exp / "run.sh").read_text()
    assert "--nodes 2" in written and "--rendezvous" not in written
    done = many.spawn("--nodes", 2, path=tmp_path, SEND="0", **job)
    assert done.returncode == 0, done.stderr
    assert_same(one.last()["model"], many.last()["model"])
    assert many.last()["world_size"] == 2


@pytest.mark.parametrize(
    "words, environment, message",
    [
        (("--nodes", "2"), {}, "--nodes 2: this is no Slurm job. Start the same command on each"),
        (("--nodes", "2"), {"SLURM_JOB_ID": "7", "SLURM_NNODES": "3"}, "the Slurm job has 3"),
        (("--nodes", "0"), {}, "--nodes 0: at least 1"),
        (("--world-size", "-1"), {}, "--world-size -1: at least 1"),
        (("--rendezvous", "a:1"), {}, "--rendezvous a:1: is where several machines meet; say how"),
    ],
)
def test_no_such_machines(words, environment, message, tiny_corpus, tmp_path, monkeypatch):
    if environment:
        monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/srun")
    for name in ("SLURM_JOB_ID", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    parser = Parser()
    launch.add_arguments(parser)
    with pytest.raises(UserError, match=re.escape(message)):
        launch.launch(parser.parse_args(list(words)), ["train"])
