"""Write a training's log file, JSONL file of numbers, TensorBoard files and progress bars."""

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from asrprune.base.files import explain_failed_write, write_text
from asrprune.data.batches import Batch
from asrprune.training.distributed import Ranks

EPOCH_START = "pruning"  # type of the lines that an epoch writes before its first step


def _wait_for_a_later_name(folder: Path) -> None:
    """Wait until the name of a new event file sorts after the names in ``folder``.

    TensorBoard reads event files in the order of their names. A name begins with the second of the
    start, and ends in a counter without leading zeros. So of two files of the same second,
    TensorBoard may read the newer file first.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)


class Metrics:
    """Write numbers of steps to a JSONL file and to TensorBoard.

    On a resume, lines that were written after the checkpoint are removed. Lines that the start of
    an epoch wrote at the checkpoint's step are removed too, because they are written again.
    """

    def __init__(self, folder: Path, step: int):
        """Open the files of the metrics, and remove the lines after the checkpoint.

        Args:
            folder: folder of the training.
            step: step of the checkpoint.
        """
        (folder / "log").mkdir(parents=True, exist_ok=True)
        self.path = folder / "log" / "metrics.jsonl"
        self._take_back(step)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        with explain_failed_write(folder / "tensorboard"):
            _wait_for_a_later_name(folder / "tensorboard")
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, **numbers: float) -> None:
        """Write a line of numbers, such as ``write("train", 100, loss=2.3)``.

        Args:
            kind: type of the line.
            step: step of the training.
            numbers: the numbers by name.

        Raises:
            UserError: the disk is full.
        """
        with explain_failed_write(self.path):
            self.file.write(json.dumps({"kind": kind, "step": step, **numbers}) + "\n")
            self.file.flush()
        with explain_failed_write(self.board.log_dir):
            for name, value in numbers.items():
                self.board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the JSONL file and TensorBoard. Both are closed even if one fails.

        Raises:
            UserError: the disk is full.
        """
        try:
            with explain_failed_write(self.path):  # closing repeats a write that failed before
                self.file.close()
        finally:
            with explain_failed_write(self.board.log_dir):
                self.board.close()

    def _take_back(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                if entry["step"] < step or (entry["step"] == step and entry["kind"] != EPOCH_START):
                    kept.append(line + "\n")
            except ValueError:  # an incomplete last line, from a killed process
                break
        write_text(self.path, "".join(kept))


def log_to_file(path: Path) -> logging.Handler:
    """Copy the log into a file. Return the handler, which the caller removes at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    return handler


def epoch_bar(epoch: int, epochs: int, total: float, done: float, shown: bool) -> tqdm:
    """Return a progress bar over the seconds of audio of an epoch. Without a terminal it is silent.

    Args:
        epoch: number of the epoch.
        epochs: number of epochs.
        total: seconds of the epoch.
        done: seconds that were done before.
        shown: False: show no bar.
    """
    return tqdm(
        desc=f"epoch {epoch}/{epochs}",
        total=round(total),
        initial=round(done),
        unit="s",
        unit_scale=True,
        disable=None if shown else True,
        leave=False,
    )


def dev_bar(name: str, cuts: int, shown: bool) -> tqdm:
    """Return a progress bar over the cuts of a dev set. Without a terminal it is silent."""
    return tqdm(desc=name, total=cuts, unit="cut", disable=None if shown else True, leave=False)


class EpochClock:
    """Measure the wall-clock seconds of an epoch, and the seconds of waiting for batches."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._loading = 0.0

    def load(self, batches: Iterable[Batch]) -> list[Batch]:
        """Return the batches as a list, and add the time until all are loaded."""
        since = time.monotonic()
        found = list(batches)
        self._loading += time.monotonic() - since
        return found

    def read(self) -> dict[str, float]:
        """Return the ``seconds`` since the clock was made, and the ``loading`` part of them."""
        return {"seconds": time.monotonic() - self._since, "loading": self._loading}


class Meter:
    """Sum up values between two log lines. The sums stay on the device until they are read."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self._clear()

    def _clear(self) -> None:
        names = ("loss", "simple", "tokens", "norm", "steps", "skipped", "seconds", "pruning")
        self.sums: dict[str, Any] = dict.fromkeys((*names, "divergence", "taught"), 0.0)
        self.since = time.monotonic()

    def add(self, **values: Any) -> None:
        """Add values to the sums of these names."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value

    def read(self, **more: float) -> dict[str, float]:
        """Return the means over all ranks since the last reading, and start anew. Collective.

        Args:
            more: further numbers of the result.
        """
        spent = time.monotonic() - self.since
        names = ("loss", "simple", "tokens", "seconds", "divergence", "taught")
        loss, simple, tokens, seconds, divergence, taught = self.ranks.total(
            *(float(self.sums[name]) for name in names)
        )
        result = {
            "loss": loss / tokens,
            "simple_loss": simple / tokens,
            "gradient_norm": self.sums["norm"] / max(self.sums["steps"], 1),
            "audio_per_second": seconds / spent,
            "pruning_share": self.sums["pruning"] / spent,  # share of the time to feed back scores
            **more,
        }
        if taught:  # divergence per token from the dense network or from the teacher
            result["divergence"] = divergence / taught
        if self.sums["skipped"]:  # steps whose gradients overflowed in float16
            result["skipped_steps"] = self.sums["skipped"]
        self._clear()
        return result
