"""Stop a training with a clear message: losses that are not finite, no memory, or Ctrl-C."""

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from asrprune.base.errors import UserError

Batch = dict[str, Any]


def check_losses(losses: torch.Tensor, batch: Batch) -> None:
    """Check that the losses of a batch are finite.

    Args:
        losses: (B,) loss of each cut.
        batch: the batch, whose cut ids the message names.

    Raises:
        UserError: a loss is NaN or infinite; the message names the cuts.
    """
    bad = ~torch.isfinite(losses.detach())
    if bad.any():
        names = [
            name for name, is_bad in zip(batch["cut_ids"], bad.tolist(), strict=True) if is_bad
        ]
        raise UserError(
            f"the loss is not finite for {_some(names)}. Nothing was updated. Look at these cuts' "
            "features and transcripts (the validate stage lists defects). If they are sound, lower "
            "training.optimizer.lr. The same command goes on from the last checkpoint."
        )


def check_gradient(norm: float, batches: list[Batch]) -> None:
    """Check that the norm of a step's gradient is finite.

    Args:
        norm: norm of the gradient.
        batches: the batches of the step, whose cut ids the message names.

    Raises:
        UserError: the norm is NaN or infinite; the message names the cuts of the step.
    """
    if not math.isfinite(norm):
        names = [name for batch in batches for name in batch["cut_ids"]]
        raise UserError(
            f"the gradient is not finite after a step on {_some(names)}. Nothing was updated. "
            "Lower training.optimizer.lr, or try training.precision=float32. The same command "
            "goes on from the last checkpoint."
        )


@contextmanager
def explain_no_memory(batch: Batch) -> Iterator[None]:
    """Turn an out-of-memory error inside of ``with`` into a message.

    Raises:
        UserError: memory ran out; the message names the cuts and the option to lower.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or _is_out_of_memory(error)):
            raise
        count, frames, _ = batch["features"].shape
        symbols = batch["tokens"].shape[1]
        raise UserError(
            f"out of memory on a batch of {count} cuts, {batch['seconds']:.0f} s of audio, "
            f"{frames} frames and {symbols} tokens at most: {_some(batch['cut_ids'])}. Lower "
            "--max-duration (the weights are kept and the epoch starts again), and try "
            "training.oom_scan=true to find the largest batches before the start."
        ) from error


@contextmanager
def explain_dead_worker() -> Iterator[None]:
    """Turn the death of a data loader's worker inside of ``with`` into a message.

    torch may raise the worker's death at any point of the code.

    Raises:
        UserError: a worker died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that loads data died ({str(error).splitlines()[0]}). Most often the "
            "machine ran out of memory, or /dev/shm of room: lower data.num_workers or "
            "--max-duration. The same command goes on from the last checkpoint."
        ) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "allocate memory" in text or "not enough memory" in text


def largest_batches(batches: Iterable[Any]) -> list[Any]:
    """Return the batches of an epoch that need the most memory, each batch once.

    These are the batches with the most padded audio, with the most cuts, and with the longest cut.
    """
    measures: tuple[Callable[[Any], float], ...] = (
        lambda cuts: len(cuts) * max(cut.duration for cut in cuts),
        len,
        lambda cuts: max(cut.duration for cut in cuts),
    )
    best: list[tuple[float, Any]] = [(-1.0, None)] * len(measures)
    for cuts in batches:
        for index, measure in enumerate(measures):
            if (size := measure(cuts)) > best[index][0]:
                best[index] = (size, cuts)
    return list({id(cuts): cuts for _, cuts in best if cuts is not None}.values())


class Interrupt:
    """Catch Ctrl-C and SIGTERM, so that the trainer stops after its step.

    A second Ctrl-C stops the trainer at once. A second SIGTERM does not: a batch system sends a
    SIGTERM to each rank, and torchrun passes on a second one.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if number == signal.SIGINT:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"cut{'s' if len(names) > 1 else ''} {', '.join(names[:most])}{more}"
