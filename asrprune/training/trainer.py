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
from asrprune.data_pruning.record import write_cycle, write_end
from asrprune.data_pruning.sampler import PruningSampler
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
from asrprune.training.pruning import encoder_frames
from asrprune.training.schedule import Progress, loss_weights, rate_factor
from asrprune.transducer.encoder import FrameTransform
from asrprune.transducer.model import Transducer

log = logging.getLogger(__name__)

Batch = dict[str, Any]
PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclasses.dataclass
class TrainingData:
    """What a training draws from. ``seconds``: audio of the whole set."""

    sampler: DynamicBucketingSampler | PruningSampler
    dataset: SpeechDataset
    seconds: float
    dev: dict[str, CutSet]

    @property
    def pruning(self) -> PruningSampler | None:
        """The sampler, if it is one that prunes."""
        return self.sampler if isinstance(self.sampler, PruningSampler) else None

    @property
    def epoch_seconds(self) -> float:
        """Audio of the present epoch, over all ranks, before time dropping."""
        return self.seconds * (self.pruning.plan.report["seconds"] if self.pruning else 1)

    def start_epoch(self, epoch: int) -> None:
        """Plan the epoch's cycle, and drop time if it is a pruned one; all ranks must call this."""
        self.sampler.set_epoch(epoch)
        if self.pruning and self.dataset.dropping:
            self.dataset.dropping.active = self.pruning.pruned
            self.dataset.dropping.cycle = epoch


@dataclasses.dataclass
class Position:
    """Where a training stands. ``seconds``: audio consumed in this epoch, over all ranks."""

    epoch: int = 1
    batches: int = 0
    seconds: float = 0.0
    step: int = 0


@dataclasses.dataclass
class Seen:
    """What a training saw from its start on, over all ranks; steps taken back do not count."""

    cuts: int = 0  # visits
    seconds: float = 0.0  # of audio, before time dropping
    seconds_left: float = 0.0  # after it
    clamped: int = 0  # visits of cuts too short for their share of time dropping


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
        self.seen = Seen()
        self.progress = Progress(self.options.epochs)
        half = self.options.precision == "float16"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)
        self._wants_errors = config.data_pruning.score == "el2n" and data.pruning is not None
        self._logit_errors = torch.zeros(0)  # of the last batch, (B,)
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
            "seen": dataclasses.asdict(self.seen),
            "start_epoch": self.start_epoch,
            "progress": self.progress.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pruning": self.data.pruning.state_dict() if self.data.pruning else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state_dict`, strict; another number of epochs is allowed."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        if self.data.pruning:
            self.data.pruning.load_state_dict(state["pruning"])
            self.data.pruning.allow_iter_to_reset_state()  # batches are skipped by the loader
        self.start_epoch = state["start_epoch"]
        self.position = Position(**state["position"])
        self.seen = Seen(**state["seen"])
        progress = Progress(**state["progress"])
        self.progress = progress.with_epochs(self.options.epochs, self.elapsed())

    def restart_epoch(self) -> None:
        """Forget the position inside the epoch: the batches are about to be others.

        The schedule does not go back: it waits until the training has come as far again.
        """
        elapsed = self.elapsed()
        self.progress = Progress(self.options.epochs, elapsed, self.progress.at(elapsed))
        self.position.batches, self.position.seconds = 0, 0.0
        if self.data.pruning:
            self.data.pruning.batches = 0

    def elapsed(self, seconds: float = 0.0) -> float:
        """Epochs behind us, the present one's share of audio and ``seconds`` more included."""
        share = min(1.0, (self.position.seconds + seconds) / self.data.epoch_seconds)
        return self.position.epoch - 1 + share

    def run(self) -> int:
        """Train to the last epoch. Returns 0, or the signal that stopped it (state is saved)."""
        metrics = Metrics(self.folder, self.position.step) if self.ranks.first else None
        stopped = False
        try:
            with Interrupt() as interrupt, explain_dead_worker():
                while self.position.epoch <= self.options.epochs and not stopped:
                    self._start_epoch(metrics)
                    stopped = self.train_on(self.batches(), interrupt, metrics)
                    stopped = stopped or self._end_epoch(interrupt, metrics)
            if (pruning := self.data.pruning) and not stopped:
                pruning.end_cycle()
                if metrics:
                    folder, number = self.folder / "pruning", pruning.plan.cycle + 1
                    write_end(folder, number, pruning.scores, pruning.history)
        finally:
            if metrics:
                metrics.close()
        # a rank that was not signalled itself stops because another one was
        return (interrupt.signal or signal.SIGTERM) if stopped else 0

    def _start_epoch(self, metrics: Metrics | None) -> None:
        self.data.start_epoch(self.position.epoch)
        pruning = self.data.pruning
        if metrics and pruning and not self.position.batches:
            report = {name: value for name, value in pruning.plan.report.items() if value}
            log.info("epoch %d, cycle %d: %s", self.position.epoch, pruning.plan.cycle, report)
            numbers = {k: v for k, v in pruning.plan.report.items() if isinstance(v, int | float)}
            metrics.write("pruning", self.position.step, **numbers)
            write_cycle(self.folder / "pruning", pruning.plan, pruning.scores, pruning.history)

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
            at.epoch, options.epochs, self.data.epoch_seconds, at.seconds, self.ranks.first
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
        own_left = sum(batch["seconds_left"] for batch in batches)
        cuts = sum(len(batch["cut_ids"]) for batch in batches)
        clamped = sum(batch["clamped"] for batch in batches)
        tokens, seconds, left, cuts, clamped, stops = self.ranks.total(
            tokens, own_seconds, own_left, cuts, clamped, stop
        )
        torch.manual_seed(key_to_seed("step", self.config.seed, at.step, self.ranks.rank))
        # as of the step's end: at its start, the first one's rate would be zero
        factor = rate_factor(self.progress.at(self.elapsed(seconds)), self.options.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            with explain_no_memory(batch):
                loss, losses = self.loss(batch, meter)
                self.scaler.scale(loss / tokens).backward()
            if self.data.pruning:
                self._feed_back(self.data.pruning, batch, losses, tokens)
        self.ranks.reduce_gradients(self.model.parameters())
        self.scaler.unscale_(self.optimizer)
        limit = self.options.optimizer.clip_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit).item()
        skipped = self.scaler.is_enabled() and not math.isfinite(norm)
        if not skipped:
            check_gradient(norm, batches)
            meter.add(norm=norm, steps=1)
        self.scaler.step(self.optimizer)  # not if it is to be skipped; the scale is then lowered
        self.scaler.update()
        meter.add(skipped=int(skipped), seconds=own_seconds)
        at.step += 1
        at.batches += len(batches)
        at.seconds += seconds
        self.seen.cuts += int(cuts)
        self.seen.seconds += seconds
        self.seen.seconds_left += left
        self.seen.clamped += int(clamped)
        if at.step % self.options.average_period == 0:
            self.average.update(self.model)
        return seconds, stops > 0

    def loss(self, batch: Batch, meter: "Meter") -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted loss of a batch, summed over its cuts, and their pruned losses (B,)."""
        simple, pruned = self.forward(batch)
        check_losses(simple + pruned, batch)
        weights = self._loss_weights()
        losses = weights[0] * simple + weights[1] * pruned
        factors = self.data.pruning and self.data.pruning.weights_of(batch["cut_ids"])
        if factors is not None:
            losses = losses * torch.from_numpy(factors).to(losses)
        meter.add(
            tokens=int((batch["token_lens"] + 1).sum()),
            simple=simple.detach().sum(),
            loss=pruned.detach().sum(),
        )
        return losses.sum(), pruned.detach()

    def _loss_weights(self) -> tuple[float, float]:
        """Of the simple and of the pruned loss, at this step."""
        loss = self.config.loss
        return loss_weights(self.position.step, loss.warmup_steps, loss.simple_scale)

    def _feed_back(
        self, pruning: PruningSampler, batch: Batch, losses: torch.Tensor, tokens: float
    ) -> None:
        """Tell the sampler what a batch's cuts scored; after the backward pass."""
        more = {}
        score, token_lens = self.config.data_pruning.score, batch["token_lens"]
        if score == "loss_per_frame":
            dropping = self.data.dataset.dropping
            more["num_frames"] = encoder_frames(self.model.encoder, dropping, batch)
        elif score == "el2n":
            # the gradient of a cut's own loss, without what the step scales it by
            scale = self.scaler.get_scale() * self._loss_weights()[1] / tokens
            factors = pruning.weights_of(batch["cut_ids"])
            errors = self._logit_errors.cpu() / scale
            errors = errors if factors is None else errors / torch.from_numpy(factors)
            more["el2n"] = errors / (token_lens + 1)
        pruning.update(batch["cut_ids"], losses, token_lens, **more)

    def _on_logits(self, logits: torch.Tensor) -> None:
        """Remember the errors of the joiner's outputs, which the backward pass will find.

        They are EL2N (Paul et al. 2021, arXiv 2107.07075), the norm of softmax minus target, at the
        nodes of the pruned lattice, each weighted by its occupation; (B,) sums over the nodes.
        """

        def remember(gradient: torch.Tensor) -> None:
            self._logit_errors = gradient.float().norm(dim=-1).sum(dim=(1, 2))

        logits.register_hook(remember)

    def _frame_transform(self, batch: Batch) -> FrameTransform | None:
        """What drops encoder frames of a training batch, where data pruning asks for that."""
        dropping = self.data.dataset.dropping
        if not (dropping and self.model.training):
            return None
        return dropping.frame_transform(batch["cut_ids"], batch["token_lens"].tolist())

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Simple and pruned loss of each utterance, (B,) each, in the training's precision."""
        device = self.ranks.device
        x, x_lens, y, y_lens = (
            batch[name].to(device, non_blocking=True)
            for name in ("features", "feature_lens", "tokens", "token_lens")
        )
        precision = PRECISION[self.options.precision]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            simple, pruned = self.model(
                x,
                x_lens,
                y,
                y_lens,
                self._frame_transform(batch),
                self._on_logits if self._wants_errors and self.model.training else None,
            )
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
                self.loss(batch, meter)[0].backward()
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
        """Write ``checkpoint-<step>.pt`` and drop the oldest; all ranks must call this."""
        path = self.folder / f"checkpoint-{self.position.step}.pt"
        state = self.state_dict()
        if self.ranks.first:
            save_checkpoint(state, path)
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
        state = self.state_dict()
        if metrics:
            metrics.write("seen", at.step, epoch=done, **dataclasses.asdict(self.seen))
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
            save_checkpoint(state, epoch_file)
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
        """Means since the last reading, over all ranks; all ranks must call this."""
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
