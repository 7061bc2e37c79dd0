"""Measure the time that weight pruning adds to a training step, for gradual and supernet training.

Dense, gradual and supernet training start from the same model and train on the same batches, which
are held in memory. These ways of training take turns of some steps. So a slow phase of the machine
slows all of them alike. On a busy machine, ratios of CPU time are more exact than ratios of
wall-clock time. The number of steps in a round is a multiple of the steps between two rankings of
the blocks. So the time of a step contains its true share of the rankings. Without --manifest-dir,
the batches hold noise.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

import torch
from tqdm import tqdm

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.base.randomness import seed_global_generators
from asrprune.config import Config, load_config, override
from asrprune.data.batches import Batch
from asrprune.training.banks import groups_of
from asrprune.training.distributed import Ranks, start_ranks
from asrprune.training.generated import VOCABULARY, generated_batches, refuse_teacher
from asrprune.training.metrics import Meter
from asrprune.training.schedule import Progress
from asrprune.training.train import build_trainer
from asrprune.training.trainer import Position, Trainer
from asrprune.transducer.model import build_model
from asrprune.weight_pruning.options import ScheduleOptions

TURN = 10  # number of steps that one way takes in its turn
HELD = 50  # batches of at most this many steps are held; longer rounds repeat them
NOWHERE = Path(os.devnull)  # trainings of a benchmark write no files
DENSE = "dense"
WAYS = {
    DENSE: ["weight_pruning.method=none"],
    "gradual": ["weight_pruning.method=gradual"],
    "supernet": ["weight_pruning.method=supernet", "weight_pruning.supernet.sampling=single"],
    "sandwich": ["weight_pruning.method=supernet", "weight_pruning.supernet.sampling=sandwich"],
}


@dataclass
class Way:
    """Hold a way of training, and the time of each of its rounds."""

    trainer: Trainer
    meter: Meter
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # CPU time of all threads
    places: list[tuple[float, float]] = field(default_factory=list)  # see `_place_of`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench supernet`` to a parser."""
    parser.add_argument("--config", type=Path, required=True, help="a YAML file")
    parser.add_argument(
        "--manifest-dir", type=Path, help="validated cuts (stage 3); default: batches of noise"
    )
    parser.add_argument(
        "--lang-dir", type=Path, help="the tokenizer (stage 4); default: batches of noise"
    )
    parser.add_argument(
        "--sandwich", type=true_or_false, default=False, help="measure sandwich sampling as well"
    )
    parser.add_argument(
        "--progress",
        type=float,
        help="progress of the training at which each round starts, 0 to 1; default: the middle of "
        "the schedule's ramp",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help="steps in a round, a multiple of the refresh interval; default: one interval",
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds, after one that is not counted"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> None:
    """Print a line for each way of training: its speed, and its time compared with dense steps.

    Raises:
        UserError: an option is out of range, or the configuration has a teacher.
    """
    config = load_config(args.config, args.overrides)
    refuse_teacher(config)
    steps, progress = _checked(args, config)
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    ranks = start_ranks(config.training.device)
    dense = override(config, WAYS[DENSE])
    held = min(steps, HELD) * config.training.grad_accumulation
    if args.manifest_dir:
        first = build_trainer(dense, ranks, NOWHERE, args.manifest_dir, args.lang_dir)
        first.data.start_epoch(1)
        model, data = first.model, first.data
        batches = list(tqdm(islice(first.batches(), held), "batches", held, disable=None))
    else:
        data, batches = generated_batches(dense, ranks, held)
        seed_global_generators(config.seed)
        model = build_model(config.model, config.loss, VOCABULARY).to(ranks.device)
    ways = {}
    for name, words in WAYS.items():
        if name != "sandwich" or args.sandwich:
            own = override(config, words)
            trainer = Trainer(own, copy.deepcopy(model), data, ranks, NOWHERE)
            ways[name] = Way(trainer, Meter(ranks))
    _measure(list(ways.values()), batches, steps, args.rounds, progress)
    for line in _report(ways, config, steps, "noise" * (not args.manifest_dir)):
        sys.stdout.write(line + "\n")


def _checked(args: argparse.Namespace, config: Config) -> tuple[int, float]:
    """Return the number of steps in a round, and the progress at which each round starts."""
    schedule = config.weight_pruning.schedule
    steps = args.steps or schedule.refresh_interval
    if steps < 1 or steps % schedule.refresh_interval:
        raise UserError(
            f"--steps {steps}: no multiple of weight_pruning.schedule.refresh_interval="
            f"{schedule.refresh_interval}, so rankings would not have their share of the time"
        )
    if args.rounds < 1:
        raise UserError(f"--rounds {args.rounds}: must be at least 1")
    if bool(args.manifest_dir) != bool(args.lang_dir):
        raise UserError("--manifest-dir and --lang-dir: give both, or none for batches of noise")
    progress = _amid(schedule) if args.progress is None else args.progress
    if not 0 <= progress <= 1:
        raise UserError(f"--progress {progress:g}: must be between 0 and 1")
    return steps, progress


def _amid(schedule: ScheduleOptions) -> float:
    """Return the progress in the middle of the ramp; for a constant schedule, at its start."""
    end = schedule.start if schedule.kind == "constant" else schedule.end
    return (schedule.start + end) / 2


def _measure(
    ways: list[Way], batches: list[Batch], steps: int, rounds: int, progress: float
) -> None:
    """Fill in the seconds of each round. Each round starts at the same progress.

    The first round is not counted. In this round, optimisers allocate their state, and the ages of
    the blocks begin to differ.

    Args:
        ways: the ways of training.
        batches: the batches, which are repeated.
        steps: number of steps in a round.
        rounds: number of rounds, without the first one.
        progress: the progress at the start of each round.
    """
    accumulate = ways[0].trainer.options.grad_accumulation
    with tqdm(total=(rounds + 1) * steps * len(ways), unit="step", disable=None) as bar:
        for number in range(rounds + 1):
            endless = cycle(batches)
            for way in ways:
                way.seconds.append(0.0)
                way.cpu_seconds.append(0.0)
                way.places.clear()
                _move(way.trainer, progress, number * steps)
            for done in range(0, steps, TURN):
                turn = [
                    list(islice(endless, accumulate)) for _ in range(done, min(done + TURN, steps))
                ]
                # every second turn in reverse order, so that no way always follows the same way
                for way in ways if done // TURN % 2 else reversed(ways):
                    _time(way, turn)
                    bar.update(len(turn))
    for way in ways:
        del way.seconds[0], way.cpu_seconds[0]


def _move(trainer: Trainer, progress: float, step: int) -> None:
    """Set the progress of a trainer, and the number of its step."""
    elapsed = progress * trainer.options.epochs
    seconds = elapsed % 1 * trainer.data.epoch_seconds
    trainer.position = Position(int(elapsed) + 1, 0, seconds, step)
    trainer.progress = Progress([1.0] * trainer.options.epochs)  # a new object: it may go back


def _time(way: Way, turn: list[list[Batch]]) -> None:
    """Take some steps, and add their time to the time of the present round."""
    device = way.trainer.ranks.device
    _wait(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    for micro_batches in turn:
        way.trainer.step(micro_batches, way.meter, stop=False)
        way.places.append(_place_of(way.trainer))
    _wait(device)
    way.seconds[-1] += time.perf_counter() - started
    way.cpu_seconds[-1] += time.process_time() - cpu_started


def _place_of(trainer: Trainer) -> tuple[float, float]:
    """Return the progress at the last step, and the sparsity of its sparsest sub-network."""
    sparsity = trainer.masking.sparsity if trainer.masking else 0.0
    return trainer.progress.at(trainer.elapsed()), sparsity


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _unit(config: Config) -> str:
    options = config.weight_pruning
    return f"{options.block} blocks" if options.unit == "block" else f"{options.unit}s"


def _report(ways: dict[str, Way], config: Config, steps: int, noise: str) -> list[str]:
    """Return the lines to print: the model and the rounds, and then a line for each way."""
    model, ranks = ways[DENSE].trainer.model, ways[DENSE].trainer.ranks
    groups = groups_of(model, config.weight_pruning)
    total = sum(parameter.numel() for parameter in model.parameters())
    pruned = sum(group.size for group in groups)
    progress, sparsity = zip(*ways["gradual"].places, strict=True)
    rounds = len(ways[DENSE].seconds)
    lines = [
        f"{total / 1e6:.1f} M parameters, {pruned / 1e6:.1f} M of them in {_unit(config)}; "
        f"progress {_span(progress)}, sparsity {_span(sparsity)}; {rounds} rounds of {steps} steps"
        f"{f' on {noise}' if noise else ''}, {_place(ranks)}, torch {torch.__version__}"
    ]
    plain = ways[DENSE]
    for name, way in ways.items():
        line = f"{name}: {steps / statistics.median(way.seconds):.3f} steps/s"
        if name != DENSE:
            seen, passes = way.trainer.seen, plain.trainer.seen.passes
            line += f", {_ratio(way.seconds, plain.seconds)} times the time of dense steps"
            if ranks.device.type == "cpu":
                line += f", {_ratio(way.cpu_seconds, plain.cpu_seconds)} times the CPU time"
            line += f", {seen.passes / passes:g} times the passes"
            if seen.teacher_passes:
                line += f" and {seen.teacher_passes / passes:.2f} forward"
        lines.append(line)
    return lines


def _span(values: Sequence[float]) -> str:
    """Return the first and the last of ascending values as text; one value if both are equal."""
    ends = [f"{values[0]:.3f}", f"{values[-1]:.3f}"]
    return " to ".join(dict.fromkeys(ends))


def _ratio(own: list[float], dense: list[float]) -> str:
    """Return the median ratio of the rounds as text, with the lowest and the highest ratio."""
    ratios = sorted(a / b for a, b in zip(own, dense, strict=True))
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"


def _place(ranks: Ranks) -> str:
    """Return the name of the GPU, or the number of threads."""
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_name(ranks.device)
    return f"{torch.get_num_threads()} threads"
