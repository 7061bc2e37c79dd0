"""Measure the training steps of a recipe on this device, and compute the cost of its training.

Each configuration takes steps on batches of noise, with its own batch sizes and its own precision.
The cost of the whole training is computed from these steps. Computed values are marked
"computed". They are for the hours of speech (--hours, three times as many with --speed-perturb) and
for the epochs of the configuration, on one device. Several devices share the hours, with some loss
of speed. Data pruning and time dropping count as the options plan them.
"""

import argparse
import dataclasses
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.base.markdown import table
from asrprune.base.randomness import seed_global_generators
from asrprune.bench.supernet import NOWHERE
from asrprune.config import Config, load_config, override
from asrprune.data.batches import Batch
from asrprune.data_pruning.phases import kept_shares
from asrprune.data_pruning.time_dropping import TimeDropping
from asrprune.training.distributed import Ranks, start_ranks
from asrprune.training.generated import VOCABULARY, generated_batches, refuse_teacher
from asrprune.training.metrics import Meter
from asrprune.training.step import PRECISION
from asrprune.training.trainer import Trainer
from asrprune.transducer.k2_backend import k2_available
from asrprune.transducer.model import build_model

FEATURE_BYTES = 34e6  # bytes of an hour of stored features (lilcom), of LibriSpeech's rehearsal
COLUMNS = (
    "configuration", "parameters", "step", "loss (torch)", "loss (k2)", "speed", "memory", "busy",
    "dropping time", "hours of speech", "device hours", "features", "checkpoints",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench recipe``."""
    parser.add_argument("--config", type=Path, nargs="+", required=True, help="YAML files")
    parser.add_argument("--hours", type=float, default=960.0, help="speech to train on")
    parser.add_argument(
        "--speed-perturb", type=true_or_false, default=True, help="its copies at 0.9 and 1.1 too"
    )
    parser.add_argument("--steps", type=int, default=20, help="that are measured, after two")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to all of them")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Hold the measurements of a configuration. Seconds are medians."""

    parameters: int
    step: float  # seconds of a step
    losses: dict[str, float]  # backend -> seconds of a forward and backward pass of the loss
    speed: float  # seconds of speech that are trained in a second
    memory: int | None  # peak memory in bytes; None on a CPU
    busy: float | None  # share of the time in which the GPU computes; None on a CPU
    dropping: float | None  # time of a step with time dropping / without; None: no time is dropped
    checkpoint: int  # bytes of a checkpoint


def main(args: argparse.Namespace) -> None:
    """Print a table of the configurations.

    Raises:
        UserError: an option is out of range, or a configuration has a teacher.
    """
    if args.steps < 1 or args.hours <= 0:
        raise UserError("--steps: at least 1; --hours: above 0")
    words = [str(word) for word in args.config if "=" in str(word)] + args.overrides
    paths = [path for path in args.config if "=" not in str(path)]
    configs = {path: load_config(path, words) for path in paths}
    for config in configs.values():
        refuse_teacher(config)
    ranks = start_ranks(next(iter(configs.values())).training.device)
    hours = args.hours * (3 if args.speed_perturb else 1)
    rows = [
        _row(path, config, measure(config, ranks, args.steps), hours)
        for path, config in configs.items()
    ]
    sys.stdout.write(f"{table(COLUMNS, rows)}\n\n{_place(ranks)}, torch {torch.__version__}\n")


def measure(config: Config, ranks: Ranks, steps: int) -> Cost:
    """Measure the steps of a training on noise, and the loss alone.

    Args:
        config: the configuration. Its ``training.grad_accumulation`` is set to 1.
        ranks: the device.
        steps: number of measured steps, after two steps of warm-up.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    config.training.grad_accumulation = 1
    data, batches = generated_batches(config, ranks, steps + 2)
    seed_global_generators(config.seed)
    model = build_model(config.model, config.loss, VOCABULARY).to(ranks.device)
    without = override(config, ["data_pruning=full"])
    trainer = Trainer(without, model, data, ranks, NOWHERE)
    cuda = ranks.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(ranks.device)
    with _busy(ranks) as busy:
        times = _steps(trainer, batches)
    memory = torch.cuda.max_memory_allocated(ranks.device) if cuda else None
    step, dropping = statistics.median(times), None
    if config.data_pruning.time.variant != "none":
        dropping = (
            statistics.median(_steps(trainer, _dropped(config, model.encoder, batches))) / step
        )
    return Cost(
        sum(parameter.numel() for parameter in model.parameters()),
        step,
        _losses(trainer, batches[2:]),
        sum(batch["seconds"] for batch in batches[2:]) / sum(times),
        memory,
        statistics.mean(busy) if busy else None,
        dropping,
        _stored(trainer.state_dict()),
    )


def _steps(trainer: Trainer, batches: list[Batch]) -> list[float]:
    """Return the seconds of each step, without the first two steps, which allocate memory."""
    meter, times = Meter(trainer.ranks), []
    for batch in tqdm(batches, "steps", disable=None):
        times.append(_seconds(trainer, lambda one=batch: trainer.step([one], meter, False)))
    return times[2:]


def _seconds(trainer: Trainer, work: Callable[[], Any]) -> float:
    _wait(trainer)
    started = time.perf_counter()
    work()
    _wait(trainer)
    return time.perf_counter() - started


def _wait(trainer: Trainer) -> None:
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize(trainer.ranks.device)


def _losses(trainer: Trainer, batches: list[Batch]) -> dict[str, float]:
    """Return the median seconds of the loss alone for each available backend.

    A pass is a forward pass of the loss, and a backward pass to the outputs of encoder and
    predictor.
    """
    times: dict[str, list[float]] = {"torch": []}
    if k2_available()[0]:
        times["k2"] = []
    for batch in batches:
        for backend, seconds in times.items():
            work = _loss(trainer, batch, backend)
            work()  # the first pass of a shape is not timed
            seconds.append(_seconds(trainer, work))
    return {backend: statistics.median(seconds) for backend, seconds in times.items()}


def _loss(trainer: Trainer, batch: Batch, backend: str) -> Callable[[], None]:
    model, device = trainer.model, trainer.ranks.device
    options = dataclasses.replace(model.loss_options, backend=backend)
    precision = PRECISION[trainer.config.training.precision]
    half = torch.autocast(device.type, precision, enabled=precision != torch.float32)
    x, x_lens, y, y_lens = (
        batch[name].to(device) for name in ("features", "feature_lens", "tokens", "token_lens")
    )
    with torch.no_grad(), half:
        h, h_lens = model.encode(x, x_lens)
        g = model.predictor(y)

    def work() -> None:
        encoded, predicted = h.detach().requires_grad_(), g.detach().requires_grad_()
        with half:
            loss = model.loss(encoded, h_lens, predicted, y, y_lens, options)
        (loss.simple.sum() + loss.pruned.sum()).backward()
        model.zero_grad(set_to_none=True)

    return work


def _dropped(config: Config, encoder: torch.nn.Module, batches: list[Batch]) -> list[Batch]:
    """Return the batches after time dropping.

    Batches of noise have no audio, so frames are dropped at every level of time dropping.
    """
    options = dataclasses.replace(config.data_pruning.time, level="frames")
    dropping = TimeDropping(options, config.seed, encoder.subsampling, encoder.output_lengths)
    dropping.active = True
    shorter = []
    for batch in batches:
        rows = zip(batch["features"], batch["cut_ids"], batch["token_lens"].tolist(), strict=True)
        left = [dropping.frames(one, name, tokens)[0] for one, name, tokens in rows]
        features = torch.nn.utils.rnn.pad_sequence(left, batch_first=True)
        lengths = torch.tensor([len(one) for one in left])
        shorter.append({**batch, "features": features, "feature_lens": lengths})
    return shorter


@contextmanager
def _busy(ranks: Ranks) -> Iterator[list[float]]:
    """Yield a list. At the end of ``with``, nvidia-smi's shares of busy GPU time fill the list."""
    shares: list[float] = []
    if ranks.device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield shares
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    # by UUID, because CUDA_VISIBLE_DEVICES changes the numbers of GPUs
    name = torch.cuda.get_device_properties(ranks.device).uuid
    place = [f"--id=GPU-{name}", "--loop-ms=200"]
    with subprocess.Popen([*query, *place], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield shares
        finally:
            process.terminate()
            told = process.stdout.read().split() if process.stdout else []
            shares += [float(word) / 100 for word in told if word.isdigit()]


def _stored(state: Any) -> int:
    """Return the bytes of all tensors of a checkpoint."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(_stored, state.values()))
    return sum(map(_stored, state)) if isinstance(state, (list, tuple)) else 0


def trained_share(config: Config, dropping: float | None = None) -> tuple[float, float]:
    """Return the share of all epochs' audio that is trained on, and the share of their time.

    Args:
        config: the configuration.
        dropping: time of a step with time dropping / time of a step without; None: 1.

    Returns:
        The share of the audio before time dropping, and the share of the time.
    """
    shares = kept_shares(config.data_pruning, config.training.epochs)
    factor = 1.0 if dropping is None else dropping
    times = [kept * (factor if drops else 1.0) for kept, drops in shares]
    return sum(kept for kept, _ in shares) / len(shares), sum(times) / len(shares)


def _row(path: Path, config: Config, cost: Cost, hours: float) -> tuple[str, ...]:
    share, time = trained_share(config, cost.dropping)
    speech = hours * config.training.epochs * share
    hours_here = hours * config.training.epochs * time / cost.speed
    epochs = config.training.epochs + config.training.keep_checkpoints
    return (
        str(path),
        f"{cost.parameters / 1e6:.1f} M",
        f"{1e3 * cost.step:.0f} ms",
        *(
            f"{1e3 * cost.losses[name]:.0f} ms" if name in cost.losses else ""
            for name in ("torch", "k2")
        ),
        f"{cost.speed:.0f} x",
        "" if cost.memory is None else f"{cost.memory / 2**30:.1f} GiB",
        "" if cost.busy is None else f"{100 * cost.busy:.0f} %",
        "" if cost.dropping is None else f"{cost.dropping:.2f}",
        f"{speech:,.0f} computed",
        f"{hours_here:,.{2 if hours_here < 10 else 0}f} computed",
        f"{hours * FEATURE_BYTES / 1e9:.1f} GB computed",
        f"{epochs * cost.checkpoint / 1e9:.1f} GB computed",
    )


def _place(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        return torch.cuda.get_device_name(ranks.device)
    return f"no GPU was used: CPU, {torch.get_num_threads()} threads"
