"""What a training writes down: a log file, a JSONL of numbers, TensorBoard, a progress bar."""

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

EPOCH_START = "pruning"  # the kind of lines that an epoch's start writes, before its first step


def _wait_for_a_later_name(folder: Path) -> None:
    """Return when a new event file's name sorts behind those of ``folder``.

    TensorBoard reads files in the order of their names, which begin with the second of their
    start and end in a counter without leading zeros: of two files of one second it may take the
    older one for the newer.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.05)


class Metrics:
    """Numbers over steps. On a resume, what was written after the checkpoint is taken back.

    So is what the start of an epoch wrote at the checkpoint's step: it is written again.
    """

    def __init__(self, folder: Path, step: int):
        """Open the files of the metrics, and take back what follows the checkpoint.

        Args:
            folder: of the training.
            step: the step from which the training goes on.
        """
        (folder / "log").mkdir(parents=True, exist_ok=True)
        self.path = folder / "log" / "metrics.jsonl"
        self._take_back(step)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close)
        with explain_failed_write(folder / "tensorboard"):
            _wait_for_a_later_name(folder / "tensorboard")
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, kind: str, step: int, **numbers: float) -> None:
        """One line of numbers, such as ``write("train", 100, loss=2.3)``.

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
        """Flush and close both, whatever happens.

        Raises:
            UserError: the disk is full.
        """
        try:
            with explain_failed_write(self.path):  # what a failed write left is tried again here
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
            except ValueError:  # the last line of a killed process
                break
        write_text(self.path, "".join(kept))


def log_to_file(path: Path) -> logging.Handler:
    """Copy the log into a file; returns the handler, to be removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    return handler


def epoch_bar(epoch: int, epochs: int, total: float, done: float, shown: bool) -> tqdm:
    """A progress bar over the seconds of audio of an epoch; silent where there is no terminal."""
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
    """A progress bar over the cuts of a dev set; silent where there is no terminal."""
    return tqdm(desc=name, total=cuts, unit="cut", disable=None if shown else True, leave=False)


class EpochClock:
    """Wall-clock seconds of an epoch: in all, and those that steps waited for their batches."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._loading = 0.0

    def load(self, batches: Iterable[Batch]) -> list[Batch]:
        """Return the batches, and count the time until they were there."""
        since = time.monotonic()
        found = list(batches)
        self._loading += time.monotonic() - since
        return found

    def read(self) -> dict[str, float]:
        """Return ``seconds`` since the clock was made, and ``loading`` seconds of them."""
        return {"seconds": time.monotonic() - self._since, "loading": self._loading}


class Meter:
    """Sums between two log lines, kept on the device until they are read."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self._clear()

    def _clear(self) -> None:
        names = ("loss", "simple", "tokens", "norm", "steps", "skipped", "seconds", "pruning")
        self.sums: dict[str, Any] = dict.fromkeys((*names, "divergence", "taught"), 0.0)
        self.since = time.monotonic()

    def add(self, **values: Any) -> None:
        """Add to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value

    def read(self, **more: float) -> dict[str, float]:
        """Means since the last reading, over all ranks; all ranks must call this."""
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
            "pruning_share": self.sums["pruning"] / spent,  # of the time: feeding scores back
            **more,
        }
        if taught:  # from the dense network or the teacher, a token
            result["divergence"] = divergence / taught
        if self.sums["skipped"]:  # steps that float16 could not hold
            result["skipped_steps"] = self.sums["skipped"]
        self._clear()
        return result
