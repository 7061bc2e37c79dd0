"""``asrprune train`` on the tiny corpus: in this process, or in one that can be killed."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.multiprocessing as mp

from asrprune import cli
from asrprune.config import save_config
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.trainer import Trainer
from tests.conftest import tiny_config

ROOT = Path(__file__).parents[2]

# Runs the command line; before some step of the training it sends a signal to itself, or (0) to
# its whole process group, as Ctrl-C does.
KILLED = """
import os, signal, sys, time
from asrprune import cli
from asrprune.training.trainer import Trainer

number, step, to, *words = sys.argv[1:]
original = Trainer.step

def stepping(self, *args):
    if self.position.step == int(step) and self.ranks.rank == 0:
        os.kill(int(to) if to == "0" else os.getpid(), int(number))
        time.sleep(0.5)  # the loader's workers have the time to die, if they do
    return original(self, *args)

Trainer.step = stepping
sys.argv = ["asrprune", *words]
sys.exit(cli.main())
"""


@dataclass
class TrainCommand:
    """The words of the command, and ways to run it."""

    config: Path
    exp: Path
    corpus: SimpleNamespace
    options: tuple[str, ...] = field(default=())

    def words(self, *more: Any) -> list[str]:
        """The command line after ``asrprune``."""
        return [
            *("train", "--config", str(self.config), "--exp-dir", str(self.exp)),
            *("--manifest-dir", str(self.corpus.manifests), "--lang-dir", str(self.corpus.lang)),
            *self.options,
            *map(str, more),
        ]

    def __call__(self, *more: Any) -> int:
        """Run it here; returns the exit status."""
        saved = sys.argv
        sys.argv = ["asrprune", *self.words(*more)]
        try:
            return cli.main()
        finally:
            sys.argv = saved

    def spawn(
        self, *more: Any, path: Path = ROOT, **environment: str
    ) -> subprocess.CompletedProcess:
        """Run it in a process group of its own; ``path``: where it finds modules of the user's."""
        environment["PYTHONPATH"] = f"{ROOT}:{path}"
        return run_python("-m", "asrprune.cli", *self.words(*more), **environment)

    def killed(
        self, signal: int, step: int, *more: Any, group: bool = False
    ) -> subprocess.CompletedProcess:
        """Run it in a process that gets a signal before it takes step ``step`` (from 0)."""
        to = "0" if group else "self"
        return run_python("-c", KILLED, str(int(signal)), str(step), to, *self.words(*more))

    def names(self, kind: str) -> list[str]:
        """The checkpoints of a kind, in order."""
        return [path.name for path in numbered(self.exp, kind)]

    def last(self) -> dict[str, Any]:
        """The furthest checkpoint."""
        return load_checkpoint(numbered(self.exp, "checkpoint")[-1])


def run_python(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python on the checkout in a process group of its own."""
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )


def make_command(folder: Path, corpus: SimpleNamespace, **options: Any) -> TrainCommand:
    """The command with a config of its own: some 10 batches an epoch, 2 epochs."""
    options = {
        "data__max_duration": 5.0,
        "training__threads": 1,
        "training__checkpoint_interval": 2,
        "training__log_interval": 1,
        **options,
    }
    path = folder / "tiny.yaml"
    save_config(tiny_config(corpus, **options), path)
    return TrainCommand(path, folder / "exp", corpus)


def on_ranks(main: Callable[..., None], words: tuple[Any, ...], count: int) -> None:
    """Run ``main(rank, *words)`` in a process for each rank, forked where torch is loaded."""
    forkserver.set_forkserver_preload(["asrprune.data.batches", "asrprune.training.train"])
    mp.start_processes(main, words, nprocs=count, start_method="forkserver")


def shake(model: torch.nn.Module) -> torch.nn.Module:
    """Move all weights a little, so that no branch of the encoder starts silent."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    return model


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the bit, whatever the nesting."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}[{index}]")
    else:
        assert one == other, where


def assert_same_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the bit in everything but resumable options."""
    assert_same({**one, "config": None}, {**other, "config": None})


def train_to_next(trainer: Trainer, wanted: dict) -> None:
    """Go on for one batch, or to the end of the epoch if ``wanted`` was saved there."""
    if wanted["position"]["batches"]:
        step = trainer.step
        trainer.step = lambda *words: replace(step(*words), stopped=True)
    else:
        end = trainer._end_epoch
        trainer._end_epoch = lambda *words: end(*words) or True
    trainer.run()
