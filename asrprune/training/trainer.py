"""The training loop, and nothing else: batches in, weights and checkpoints out.

Exact resume rests on three things. Every random draw is a pure function of (seed, step, rank) or
(seed, epoch, cut). The position in the data is (epoch, batches consumed). And all state is in one
dict, :meth:`Trainer.state_dict`.
"""

import dataclasses
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler

from asrprune.config import Config
from asrprune.corpus.batches import SpeechDataset, dev_loader, epoch_loader
from asrprune.errors import UserError
from asrprune.randomness import key_to_seed
from asrprune.training.averaging import RunningAverage
from asrprune.training.checkpoint import also_as, remove_old_checkpoints, save_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.guards import (
    Interrupt,
    check_gradient,
    check_losses,
    explain_dead_worker,
    explain_no_memory,
)
from asrprune.training.metrics import Metrics, dev_bar, epoch_bar
from asrprune.training.schedule import Progress, loss_weights, rate_factor
from asrprune.transducer.model import Transducer

log = logging.getLogger(__name__)

Batch = dict[str, Any]
PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass
class TrainingData:
    """What a training draws from. ``seconds``: audio of an epoch, over all ranks."""

    sampler: DynamicBucketingSampler
    dataset: SpeechDataset
    seconds: float
    dev: dict[str, CutSet]


@dataclasses.dataclass
class Position:
    """Where a training stands. ``seconds``: audio consumed in this epoch, over all ranks."""

    epoch: int = 1
    batches: int = 0
    seconds: float = 0.0
    step: int = 0


class Trainer:
    """Trains a model; everything it knows between two steps is in its :meth:`state_dict`."""

    def __init__(
        self, config: Config, model: Transducer, data: TrainingData, ranks: Ranks, folder: Path
    ):
        self.config = config
        self.options = config.training
        self.model = model
        self.data = data
        self.ranks = ranks
        self.folder = folder
        self.optimizer = make_optimizer(model, config)
        self.average = RunningAverage(model)
        self.position = Position()
        self.progress = Progress(self.options.epochs)
        half = self.options.precision == "float16"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)
        self.start_epoch = 0  # where a training was told to go back to; 0: it was not
        self.identity: dict[str, Any] = {}  # saved with the state; see asrprune.training.train

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs, besides the data itself."""
        return {
            **self.identity,
            "config": dataclasses.asdict(self.config),
            "world_size": self.ranks.world,
            "threads": torch.get_num_threads(),
            "position": dataclasses.asdict(self.position),
            "start_epoch": self.start_epoch,
            "progress": self.progress.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, strict; another number of epochs is allowed."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.start_epoch = state["start_epoch"]
        self.position = Position(**state["position"])
        progress = Progress(**state["progress"])
        self.progress = progress.with_epochs(self.options.epochs, self.elapsed())

    def restart_epoch(self) -> None:
        """Forget the position inside the epoch: the batches are about to be others.

        The schedule does not go back: it waits until the training has come as far again.
        """
        elapsed = self.elapsed()
        self.progress = Progress(self.options.epochs, elapsed, self.progress.at(elapsed))
        self.position.batches, self.position.seconds = 0, 0.0

    def elapsed(self, seconds: float = 0.0) -> float:
        """Epochs behind us, the present one's share of audio and ``seconds`` more included."""
        share = min(1.0, (self.position.seconds + seconds) / self.data.seconds)
        return self.position.epoch - 1 + share

    def run(self) -> int:
        """Train to the last epoch. Returns 0, or the signal that stopped it (state is saved)."""
        metrics = Metrics(self.folder, self.position.step) if self.ranks.first else None
        stopped = False
        try:
            with Interrupt() as interrupt, explain_dead_worker():
                while self.position.epoch <= self.options.epochs and not stopped:
                    stopped = self.train_on(self.batches(), interrupt, metrics)
                    stopped = stopped or self._end_epoch(interrupt, metrics)
        finally:
            if metrics:
                metrics.close()
        # a rank that was not signalled itself stops because another one was
        return (interrupt.signal or signal.SIGTERM) if stopped else 0

    def batches(self) -> Iterator[Batch]:
        """What is left of the present epoch."""
        return epoch_loader(
            self.data.sampler,
            self.data.dataset,
            self.position.epoch,
            self.position.batches,
            self.config.data,
            pin_memory=self.ranks.device.type == "cuda",
        )

    def train_on(
        self, batches: Iterator[Batch], interrupt: Interrupt, metrics: Metrics | None
    ) -> bool:
        """Train on batches of the present epoch; True when it was interrupted, after saving."""
        at, options = self.position, self.options
        meter = Meter(self.ranks)
        with epoch_bar(
            at.epoch, options.epochs, self.data.seconds, at.seconds, self.ranks.first
        ) as bar:
            while micro_batches := list(islice(batches, options.accumulate)):
                seconds, stop = self.step(micro_batches, meter, bool(interrupt.signal))
                bar.update(seconds)
                if at.step % options.log_interval == 0:
                    numbers = meter.read(lr=self.optimizer.param_groups[0]["lr"])
                    bar.set_postfix(loss=f"{numbers['loss']:.3f}")
                    if metrics:
                        metrics.write("train", at.step, epoch=self.elapsed(), **numbers)
                if stop:
                    self.save_checkpoint()
                    return True
                if at.step % options.checkpoint_interval == 0:
                    self.save_checkpoint()
        return False

    def step(self, batches: list[Batch], meter: "Meter", stop: bool) -> tuple[float, bool]:
        """One optimiser step on some micro-batches.

        The loss is ``sum_b loss_b / sum_b (S_b + 1)``, both sums over micro-batches and ranks.
        Returns the audio seconds of all ranks, and whether any rank was asked to stop.
        """
        at = self.position
        tokens = sum(int((batch["token_lens"] + 1).sum()) for batch in batches)
        own_seconds = sum(batch["seconds"] for batch in batches)
        tokens, seconds, stops = self.ranks.total(tokens, own_seconds, stop)
        torch.manual_seed(key_to_seed("step", self.config.seed, at.step, self.ranks.rank))
        # as of the step's end: at its start, the first one's rate would be zero
        factor = rate_factor(self.progress.at(self.elapsed(seconds)), self.options.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with explain_no_memory(batch):
                self.scaler.scale(self.loss(batch, meter) / tokens).backward()
        self.ranks.reduce_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        limit = self.options.optimizer.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        skipped = self.scaler.is_enabled() and not math.isfinite(norm)
        if not skipped:
            check_gradient(norm, batches)
            meter.add(norm=norm, steps=1)
        self.scaler.step(
            self.optimizer
        )  # leaves such a step out, and the next line lowers its scale
        self.scaler.update()
        meter.add(skipped=int(skipped), seconds=own_seconds)
        at.step += 1
        at.batches += len(batches)
        at.seconds += seconds
        if at.step % self.options.average_period == 0:
            self.average.update(self.model)
        return seconds, stops > 0

    def loss(self, batch: Batch, meter: "Meter") -> torch.Tensor:
        """The weighted loss of a batch, summed over its utterances."""
        simple, pruned = self.forward(batch)
        check_losses(simple + pruned, batch)
        loss = self.config.loss
        weights = loss_weights(self.position.step, loss.warmup_steps, loss.simple_scale)
        total = (weights[0] * simple + weights[1] * pruned).sum()
        meter.add(
            tokens=int((batch["token_lens"] + 1).sum()),
            simple=simple.detach().sum(),
            loss=pruned.detach().sum(),
        )
        return total

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Simple and pruned loss of each utterance, (B,) each, in the training's precision."""
        device = self.ranks.device
        x, x_lens, y, y_lens = (
            batch[name].to(device, non_blocking=True)
            for name in ("features", "feature_lens", "tokens", "token_lens")
        )
        precision = PRECISION[self.options.precision]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            simple, pruned = self.model(x, x_lens, y, y_lens)
        return simple, pruned

    def scan_memory(self, cut_sets: Iterable[CutSet]) -> None:
        """Forward and backward on some batches, without an update.

        What the optimiser will hold from its first step on is held meanwhile.

        :raises UserError: one does not fit; names its cuts and the option to lower.
        """
        meter = Meter(self.ranks)
        moments = [torch.zeros_like(p) for p in self.model.parameters() for _ in range(2)]
        if self.optimizer.state:  # a resumed training has its own
            moments.clear()
        for cuts in cut_sets:
            batch = self.data.dataset[cuts]
            with explain_no_memory(batch):
                self.loss(batch, meter).backward()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def validate(self, stop: Callable[[], bool] = bool) -> dict[str, float] | None:
        """The pruned loss per token of each dev set, over the utterances that have one.

        The ranks share the batches among them. None if ``stop`` said so meanwhile on one of them.
        """
        result, stops = {}, 0.0
        self.model.eval()
        for name, cuts in self.data.dev.items():
            loss = tokens = 0.0
            batches = dev_loader(
                cuts,
                self.data.dataset.tokenizer,
                self.config.data,
                self.ranks.rank,
                self.ranks.world,
            )
            with dev_bar(name, len(cuts), self.ranks.first) as bar:
                for batch in batches:
                    if stop():
                        break
                    with explain_no_memory(batch):
                        losses = self.forward(batch)[1].double()
                    # one with more symbols than frames has no path in the modified topology
                    finite = losses.isfinite()
                    loss += losses[finite].sum().item()
                    tokens += int((batch["token_lens"] + 1)[finite.cpu()].sum())
                    bar.update(len(losses) * self.ranks.world)
            loss, tokens, stops = self.ranks.total(loss, tokens, stop())
            if stops:
                break
            result[name] = loss / max(tokens, 1)
        self.model.train()
        return None if stops else result

    def save_checkpoint(self) -> Path:
        """Write ``checkpoint-<step>.pt`` and drop the oldest; every rank must call this."""
        path = self.folder / f"checkpoint-{self.position.step}.pt"
        if self.ranks.first:
            save_checkpoint(self.state_dict(), path)
            remove_old_checkpoints(self.folder, self.options.keep_checkpoints)
        self.ranks.barrier()
        return path

    def _end_epoch(self, interrupt: Interrupt, metrics: Metrics | None) -> bool:
        """Validate and save an epoch; True when it was interrupted, after saving what it has."""
        at = self.position
        done = at.epoch
        losses = self.validate(lambda: bool(interrupt.signal))
        if losses is None:
            self.save_checkpoint()
            return True
        at.epoch, at.batches, at.seconds = done + 1, 0, 0.0
        if metrics:
            if losses:
                metrics.write("dev", at.step, **losses)
            shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            log.info(
                "epoch %d of %d, step %d: dev loss %s",
                done,
                self.options.epochs,
                at.step,
                shown or "not measured",
            )
            epoch_file = self.folder / f"epoch-{done}.pt"
            save_checkpoint(self.state_dict(), epoch_file)
            also_as(epoch_file, self.folder / f"checkpoint-{at.step}.pt")
            remove_old_checkpoints(self.folder, self.options.keep_checkpoints)
        self.ranks.barrier()
        return False


class Meter:
    """Sums between two log lines, kept on the device until they are read."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Any] = dict.fromkeys(
            ("loss", "simple", "tokens", "norm", "steps", "skipped", "seconds"), 0.0
        )
        self.since = time.monotonic()

    def add(self, **values: Any) -> None:
        """Add to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value

    def read(self, **more: float) -> dict[str, float]:
        """Means since the last reading, over all ranks; every rank must call this."""
        spent = time.monotonic() - self.since
        loss, simple, tokens, seconds = self.ranks.total(
            *(float(self.sums[name]) for name in ("loss", "simple", "tokens", "seconds"))
        )
        result = {
            "loss": loss / tokens,
            "simple_loss": simple / tokens,
            "gradient_norm": self.sums["norm"] / max(self.sums["steps"], 1),
            "audio_per_second": seconds / spent,
            **more,
        }
        if self.sums["skipped"]:  # steps that float16 could not hold
            result["skipped_steps"] = self.sums["skipped"]
        self._clear()
        return result


def make_optimizer(model: torch.nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms) are not decayed.

    :raises UserError: options that AdamW refuses.
    """
    options = config.training.optimizer
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    try:
        return torch.optim.AdamW(
            groups, lr=options.lr, betas=tuple(options.betas), eps=options.eps, fused=True
        )
    except (ValueError, IndexError) as error:  # betas out of range, or only one of them
        raise UserError(f"training.optimizer: {error}") from error
