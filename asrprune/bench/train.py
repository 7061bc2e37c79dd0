"""Measure the speed of the trainer against a bare loop over the same model and batches."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import torch

from asrprune.config import load_config
from asrprune.training.distributed import start_ranks
from asrprune.training.guards import Interrupt
from asrprune.training.metrics import Metrics
from asrprune.training.optimizer import make_optimizer
from asrprune.training.schedule import loss_weights
from asrprune.training.train import build_trainer
from asrprune.training.trainer import Batch, Position, Trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench train``."""
    parser.add_argument("--config", type=Path, required=True, help="a YAML file")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument("--steps", type=int, default=20, help="steps a round, at most an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, the two in turn")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> None:
    """Time both loops in turn, and print their speeds and the ratio of the median times."""
    config = load_config(args.config, args.overrides)
    config.training.grad_accumulation = 1
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    ranks = start_ranks(config.training.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, ranks, Path(folder), args.manifest_dir, args.lang_dir)
        metrics = Metrics(Path(folder), 0)
        trainer.data.sampler.set_epoch(1)
        steps = sum(1 for _ in islice(trainer.data.sampler, args.steps))  # at most an epoch
        # made once, like the trainer's optimiser, so that the warm-up round allocates its state
        bare_loop = partial(_bare_loop, make_optimizer(trainer.model, config))
        times: dict[str, list[float]] = {"bare": [], "trainer": []}
        for round_number in range(args.rounds + 1):
            bare = _timed(trainer, bare_loop, steps, metrics)
            own = _timed(trainer, _trainer_loop, steps, metrics)
            if round_number:  # the first round is the warm-up
                times["bare"].append(bare)
                times["trainer"].append(own)
        metrics.close()
    bare, own = (sorted(times[name])[len(times[name]) // 2] for name in ("bare", "trainer"))
    sys.stdout.write(
        f"bare loop {steps / bare:.3f} steps/s, trainer {steps / own:.3f} steps/s, "
        f"trainer / bare time {own / bare:.3f} (median of {args.rounds} rounds of {steps} "
        f"steps, {torch.get_num_threads()} threads)\n"
    )


def _timed(trainer: Trainer, loop, steps: int, metrics: Metrics) -> float:
    trainer.position = Position()
    start = time.monotonic()
    loop(trainer, trainer.batches(), steps, metrics)
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic() - start


def _bare_loop(
    optimizer: torch.optim.Optimizer,
    trainer: Trainer,
    batches: Iterator[Batch],
    steps: int,
    _: Metrics,
) -> None:
    """Run a simple training loop: forward in the trainer's precision, backward, clip, step."""
    model, config = trainer.model, trainer.config
    simple_weight, pruned_weight = loss_weights(0.0, config.loss)
    for _, batch in zip(range(steps), batches, strict=False):
        simple, pruned = trainer.forward(batch)
        loss = (simple_weight * simple + pruned_weight * pruned).sum()
        optimizer.zero_grad()
        (loss / (batch["token_lens"] + 1).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.optimizer.clip_norm)
        optimizer.step()


def _trainer_loop(trainer: Trainer, batches: Iterator[Batch], steps: int, metrics: Metrics) -> None:
    """Run the trainer's loop with its guards, progress bar, metrics and checkpoints."""
    with Interrupt() as interrupt:
        trainer.train_on(islice(batches, steps), interrupt, metrics)
