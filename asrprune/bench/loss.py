"""Compare time and memory of the pruned loss with torchaudio's full loss, both with the joiner.

Each measurement runs in its own process. Time is the lowest time of a forward and backward pass
among the repeats. Memory is the peak that one forward and backward pass adds. The peak is VmHWM of
/proc/self/status, which is reset to the resident size just before the pass. This works on Linux
only. On other systems, no memory is reported. The added memory contains the gradients, but not the
inputs and the parameters.
"""

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from asrprune.base.files import write_json
from asrprune.transducer.loss import resolve_backend, transducer_loss
from asrprune.transducer.options import BACKENDS, LossOptions


class Size(NamedTuple):
    """Hold the numbers of utterances (B), frames (T), symbols (S) and vocabulary entries (V)."""

    B: int
    T: int
    S: int
    V: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


class Measurement(NamedTuple):
    """Hold the time and the memory of one forward and backward pass."""

    seconds: float
    megabytes: float | None  # added peak memory in MiB; None if it cannot be measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench loss`` to a parser."""
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        default=[Size(8, 250, 40, 500), Size(16, 400, 60, 500)],
        metavar="BxTxSxV",
        help="utterances, frames, symbols and vocabulary of each run",
    )
    parser.add_argument("--joiner-dim", type=int, default=256)
    parser.add_argument("--prune-range", type=int, default=5, help="positions kept per frame")
    parser.add_argument("--backend", choices=BACKENDS, default="torch", help="of the pruned loss")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")


def main(args: argparse.Namespace) -> None:
    """Print a table of all sizes and both losses."""
    options = LossOptions(backend=resolve_backend(args.backend), prune_range=args.prune_range)
    losses = {"torchaudio": None, options.backend: options}
    # The processes below inherit this setting: waiting threads sleep. On a machine with other work,
    # spinning threads would measure the scheduler (a run was 30 times slower). On an idle machine,
    # sleeping threads cost little.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    rows = []
    with tqdm(total=len(args.sizes) * len(losses), unit="run") as progress:
        for size in args.sizes:
            row: dict = {"size": str(size)}
            for name, loss_options in losses.items():
                progress.set_description(f"{name} {size}")
                work = (size, loss_options, args.joiner_dim, args.threads, args.repeats)
                row[name] = _in_own_process(*work)._asdict()
                progress.update()
            rows.append(row)
    sys.stdout.write(_table(rows, options.backend, args))
    if args.json:
        settings = {"torch": torch.__version__, "threads": args.threads, "repeats": args.repeats}
        write_json(args.json, {**settings, **vars(options), "rows": rows})


def measure(
    size: Size, options: LossOptions | None, joiner_dim: int, threads: int, repeats: int
) -> Measurement:
    """Measure one of the losses.

    Args:
        size: the size of the batch.
        options: the options of the pruned loss; None: measure torchaudio's full loss.
        joiner_dim: dimension of the joiner.
        threads: number of CPU threads.
        repeats: number of timed passes.
    """
    torch.set_num_threads(threads)
    # libraries load code and start threads on their first call, which is not memory of the loss
    _prepare(Size(2, 8, 3, size.V), options, joiner_dim)()
    step = _prepare(size, options, joiner_dim)
    resident = _reset_peak()
    seconds = [_timed(step)]
    megabytes = None if resident is None else _peak() - resident
    seconds += [_timed(step) for _ in range(repeats - 1)]
    return Measurement(min(seconds), megabytes)


def _prepare(size: Size, options: LossOptions | None, joiner_dim: int) -> Callable[[], None]:
    """Make inputs and parameters, and return a function that runs a forward and backward pass."""
    generator = torch.Generator().manual_seed(0)

    def scores(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    a, b = scores(size.B, size.T, joiner_dim), scores(size.B, size.S + 1, joiner_dim)
    y = torch.randint(1, size.V, (size.B, size.S), generator=generator)
    t_lens, y_lens = torch.full((size.B,), size.T), torch.full((size.B,), size.S)
    output = nn.Linear(joiner_dim, size.V)

    def joiner(a: Tensor, b: Tensor) -> Tensor:
        return output(torch.tanh(a + b))

    if options is None:
        # imported only here, because a torchaudio that does not match torch fails to load
        from torchaudio.functional import rnnt_loss

        def step() -> None:
            logits = joiner(a[:, :, None], b[:, None])
            lengths = t_lens.int(), y_lens.int()
            rnnt_loss(logits, y.int(), *lengths, blank=0, reduction="sum").backward()

    else:
        am, lm = scores(size.B, size.T, size.V), scores(size.B, size.S + 1, size.V)

        def step() -> None:
            loss = transducer_loss(am, lm, a, b, joiner, y, t_lens, y_lens, options)
            (loss.simple + loss.pruned).sum().backward()

    return step


def _in_own_process(*work) -> Measurement:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, work)


def _timed(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _reset_peak() -> float | None:
    """Reset the peak of the resident size to the present size, and return it in MiB.

    The result is None if the system is not Linux.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _peak()


def _peak() -> float:
    """Return the peak of the resident size in MiB.

    ``ru_maxrss`` is not used, because it also counts the parent's memory.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def _size(text: str) -> Size:
    try:
        size = Size(*map(int, text.split("x")))
    except (TypeError, ValueError):
        size = None
    if size is None or min(size) < 1 or size.V < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 8x250x40x500")
    return size


def _table(rows: list[dict], ours: str, args: argparse.Namespace) -> str:
    lines = [
        f"pruned loss ({ours}, range {args.prune_range}) and torchaudio's full loss, joiner of "
        f"{args.joiner_dim} included; {args.threads} threads, best of {args.repeats}",
        f"{'BxTxSxV':<20}{'loss':<14}{'seconds':>9}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}",
    ]
    for row in rows:
        full, pruned = row["torchaudio"], row[ours]
        lines.append(
            f"{row['size']:<20}{'torchaudio':<14}{full['seconds']:>9.3f}{'':>8}{_mb(full):>10}"
        )
        time_ratio = f"{pruned['seconds'] / full['seconds']:.3f}"
        memory_ratio = "n/a"
        if full["megabytes"] and pruned["megabytes"] is not None:
            memory_ratio = f"{pruned['megabytes'] / full['megabytes']:.3f}"
        lines.append(
            f"{'':<20}{'pruned':<14}{pruned['seconds']:>9.3f}{time_ratio:>8}"
            f"{_mb(pruned):>10}{memory_ratio:>8}"
        )
    return "\n".join(lines) + "\n"


def _mb(measurement: dict) -> str:
    megabytes = measurement["megabytes"]
    return "n/a" if megabytes is None else f"{megabytes:.0f}"
