"""Run the training loop: take batches, update weights, and write checkpoints.

An exact resume needs three things. Every random draw of torch, numpy and Python is a pure function
of (seed, step, rank) or of (seed, epoch, cut). The position in the data is (epoch, consumed
batches). All state is in one dict, :meth:`Trainer.state_dict`.
"""

import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet

from asrprune.config import Config
from asrprune.data.batches import Batch, epoch_loader
from asrprune.data_pruning.phases import planned_shares
from asrprune.data_pruning.record import write_cycle, write_end
from asrprune.training import step as one_step
from asrprune.training.averaging import RunningAverage
from asrprune.training.checkpoint import also_as, remove_old_checkpoints, save_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.freezing import freeze
from asrprune.training.guards import (
    Interrupt,
    explain_dead_worker,
    explain_no_memory,
)
from asrprune.training.initial import load_initial
from asrprune.training.masking import Network
from asrprune.training.methods import make_masking
from asrprune.training.metrics import EPOCH_START, EpochClock, Meter, Metrics, epoch_bar
from asrprune.training.module_values import ModuleValues
from asrprune.training.optimizer import make_optimizer
from asrprune.training.pruning import ScoreFeedback, TrainingData, TrainingStats
from asrprune.training.schedule import Progress
from asrprune.training.sources import digests_of
from asrprune.training.validation import loss_per_token
from asrprune.transducer.model import Transducer

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Position:
    """Hold the position of a training: its epoch, its step, and what the epoch has consumed."""

    epoch: int = 1
    batches: int = 0  # batches of a rank that this epoch has consumed
    seconds: float = 0.0  # seconds of audio that this epoch has consumed, over all ranks
    step: int = 0


class Trainer:
    """Train a model. The whole state between two steps is in :meth:`state_dict`."""

    def __init__(
        self,
        config: Config,
        model: Transducer,
        data: TrainingData,
        ranks: Ranks,
        folder: Path,
        teacher: Transducer | None = None,
    ):
        self.config = config
        self.options = config.training
        self.model = model
        self.data = data
        self.ranks = ranks
        self.folder = folder
        self.frozen = freeze(model, self.options.freeze)  # number of frozen weights
        self.optimizer = make_optimizer(model, config)
        self.masking = make_masking(model, self.optimizer, config, ranks, data.languages)
        if self.masking:
            self.optimizer = self.masking.optimizer
        self.average = RunningAverage(model)
        self.module_values = ModuleValues(model)
        self.position = Position()
        self.seen = TrainingStats()
        self.clock = EpochClock()
        self.progress = Progress(self._planned_shares())
        half = self.options.precision == "float16"
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=half)
        self.feedback = ScoreFeedback(data.sampler, data.dataset.dropping, model.encoder)
        self.teacher = teacher
        self.start_epoch = 0  # the value of --start-epoch; 0: the option was not given
        self.identity: dict[str, Any] = {}  # saved with the state; see asrprune.training.train
        self.sources: dict[str, str] = {}  # digests of the files at the start, see `digests_of`

    def begin(self) -> None:
        """Load the model and the masks that a new training starts from, if any are named.

        Raises:
            UserError: the named model or masks are missing, or do not fit.
        """
        if self.options.init_from:
            load_initial(self.model, self.config, self.identity)
        if self.masking:
            self.masking.begin()
        self.sources = digests_of(self.config, self.data.languages)

    def state_dict(self) -> dict[str, Any]:
        """Return the whole state that a resumed training needs, without the data. Collective."""
        return {
            **self.identity,
            "config": dataclasses.asdict(self.config),
            "world_size": self.ranks.world,
            "threads": torch.get_num_threads(),
            "position": dataclasses.asdict(self.position),
            "seen": dataclasses.asdict(self.seen),
            "sources": self.sources,
            "start_epoch": self.start_epoch,
            "progress": self.progress.state_dict(),
            "model": self.model.state_dict(),
            "module_values": self.ranks.gather(self.module_values.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "masking": self.masking.state_dict() if self.masking else None,
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pruning": self.data.sampler.gathered_state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`. The number of epochs may be another one."""
        same_ranks = state["world_size"] == self.ranks.world
        self.model.load_state_dict(state["model"])
        # if the number of ranks has changed, all ranks take the values of the first rank
        values = state["module_values"]
        self.module_values.load_state_dict(values[self.ranks.rank if same_ranks else 0])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.masking:
            self.masking.load_state_dict(state["masking"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.data.sampler.load_state_dict(state["pruning"])
        self.data.sampler.allow_iter_to_reset_state()  # batches are skipped by the loader
        self.sources = state["sources"]
        self.start_epoch = state["start_epoch"]
        self.position = Position(**state["position"])
        self.seen = TrainingStats(**state["seen"])
        progress = Progress(**state["progress"])
        self.progress = progress.with_shares(self._planned_shares(), self.elapsed())

    def restart_epoch(self) -> None:
        """Go back to the start of the present epoch, because its batches will be others.

        Progress does not go back: it stays as it is until the training has come as far again.
        """
        self.progress = self.progress.restarted(self.elapsed())
        self.position.batches, self.position.seconds = 0, 0.0
        self.data.sampler.restart_epoch()

    def _planned_shares(self) -> list[float]:
        return planned_shares(self.config.data_pruning, self.options.epochs)

    def elapsed(self, seconds: float = 0.0) -> float:
        """Return the elapsed epochs, with the consumed share of the present epoch's audio.

        Args:
            seconds: further seconds of audio to count as consumed.
        """
        share = min(1.0, (self.position.seconds + seconds) / self.data.epoch_seconds)
        return self.position.epoch - 1 + share

    def run(self) -> int:
        """Train to the last epoch.

        Returns:
            0; or the signal that stopped the training, whose state is then saved.

        Raises:
            UserError: a loss or a gradient is not finite, memory or disk is full, or a worker died.
        """
        if self.masking:
            self.masking.check_tested(self.data.dev_languages)
        metrics = Metrics(self.folder, self.position.step) if self.ranks.first else None
        stopped = False
        try:
            with Interrupt() as interrupt, explain_dead_worker():
                while self.position.epoch <= self.options.epochs and not stopped:
                    self.clock = EpochClock()
                    self._start_epoch(metrics)
                    stopped = self.train_on(self.batches(), interrupt, metrics)
                    stopped = stopped or self._end_epoch(interrupt, metrics)
            if not stopped:
                sampler = self.data.sampler
                sampler.end_cycle()
                if metrics:
                    folder, number = self.folder / "pruning", sampler.plan.cycle + 1
                    write_end(folder, number, sampler.scores, sampler.history)
        finally:
            if metrics:
                metrics.close()
        # a rank that received no signal stops because another rank received one
        return (interrupt.signal or signal.SIGTERM) if stopped else 0

    def _start_epoch(self, metrics: Metrics | None) -> None:
        started = time.perf_counter()
        self.data.start_epoch(self.position.epoch)
        planning = time.perf_counter() - started
        if metrics and not self.position.batches:
            sampler = self.data.sampler
            report = sampler.plan.report
            if self.config.data_pruning.policy != "full":
                told = {name: value for name, value in report.items() if value}
                log.info("epoch %d, cycle %d: %s", self.position.epoch, sampler.plan.cycle, told)
            numbers = {name: value for name, value in report.items() if type(value) in (int, float)}
            metrics.write(EPOCH_START, self.position.step, **numbers, planning_seconds=planning)
            write_cycle(self.folder / "pruning", sampler.plan, sampler.scores, sampler.history)

    def batches(self) -> Iterator[Batch]:
        """Return an iterator over the rest of the present epoch's batches."""
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
        """Train on batches of the present epoch.

        Args:
            batches: the batches.
            interrupt: tells whether a signal has come.
            metrics: writes the metrics; None: they are not written.

        Returns:
            Whether the training was interrupted. Its state is then saved.
        """
        at, options = self.position, self.options
        meter = Meter(self.ranks)
        with epoch_bar(
            at.epoch, options.epochs, self.data.epoch_seconds, at.seconds, self.ranks.first
        ) as bar:
            while micro_batches := self.clock.load(islice(batches, options.grad_accumulation)):
                result = self.step(micro_batches, meter, bool(interrupt.signal))
                bar.update(result.seconds)
                self._log_mask_events(metrics)
                if at.step % options.log_interval == 0:
                    numbers = meter.read(lr=self.optimizer.param_groups[0]["lr"])
                    bar.set_postfix(loss=f"{numbers['loss']:.3f}")
                    if metrics:
                        metrics.write("train", at.step, epoch=self.elapsed(), **numbers)
                if result.stopped:
                    self.save_checkpoint()
                    return True
                if at.step % options.checkpoint_interval == 0:
                    self.save_checkpoint()
        return False

    def _log_mask_events(self, metrics: Metrics | None) -> None:
        """Write the mask events of the step to the metrics."""
        if metrics and self.masking:
            for kind, numbers in self.masking.mask_events.items():
                metrics.write(kind, self.position.step, **numbers)

    def step(self, batches: list[Batch], meter: Meter, stop: bool) -> one_step.StepResult:
        """Take one step of the optimiser on some micro-batches (`training_step`)."""
        return one_step.training_step(self, batches, meter, stop)

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the simple and the pruned loss of each utterance, (B,) each.

        The model computes in the precision of the training.
        """
        outputs = one_step.forward(self, batch)
        return outputs.simple, outputs.pruned

    def scan_memory(self, cut_sets: Iterable[CutSet]) -> None:
        """Run forward and backward passes on some batches without an update.

        Memory for the moments of the optimiser is allocated during the passes.

        Args:
            cut_sets: the cuts of each batch.

        Raises:
            UserError: a batch does not fit into memory; the message names its cuts and the option
                to lower.
        """
        meter = Meter(self.ranks)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        moments = [torch.zeros_like(p) for p in trained for _ in range(2)]
        if self.optimizer.state:  # the optimiser of a resumed training has its moments already
            moments.clear()
        for cuts in cut_sets:
            batch = self.data.dataset[cuts]
            with explain_no_memory(batch):
                one_step.scan(self, batch, meter)
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def validate(self, stop: Callable[[], bool] = bool) -> dict[str, float] | None:
        """Return the pruned loss per token of each dev set. Collective.

        Utterances whose loss is not finite are left out. A dev set may have several losses: a
        supernet also has the loss of its sparsest sub-network. The ranks share the batches.

        Args:
            stop: asked before each batch; True: give up.

        Returns:
            Name of a dev set, with a suffix for a sub-network -> loss; None if ``stop`` returned
            True on a rank.
        """
        result: dict[str, float] = {}
        loss: float | None = 0.0
        self.model.eval()
        for name, suffix, network in self._tests():
            with self.masking.applied(network) if network else nullcontext():
                loss = loss_per_token(
                    name,
                    self.data.dev[name],
                    lambda batch: self.forward(batch)[1],
                    self.data.dataset.tokenizer,
                    self.config.data,
                    self.ranks,
                    stop,
                )
            if loss is None:
                break
            result[name + suffix] = loss
        self.model.train()
        return None if loss is None else result

    def _tests(self) -> Iterator[tuple[str, str, Network | None]]:
        """Yield each dev set's name, a suffix for its name, and the sub-network to test.

        The sub-network is None if the model has no masks.
        """
        for name, language in self.data.dev_languages.items():
            tested = self.masking.tested(language) if self.masking else {"": None}
            for suffix, network in tested.items():
                yield name, suffix, network

    def save_checkpoint(self) -> Path:
        """Write ``checkpoint-<step>.pt``, and delete the oldest checkpoints. Collective."""
        path = self.folder / f"checkpoint-{self.position.step}.pt"
        state = self.state_dict()
        if self.ranks.first:
            save_checkpoint(state, path)
            remove_old_checkpoints(self.folder, self.options.keep_checkpoints)
        self.ranks.barrier()
        return path

    def _end_epoch(self, interrupt: Interrupt, metrics: Metrics | None) -> bool:
        """Validate and save an epoch. Collective.

        Returns:
            Whether the validation was interrupted. The state at the end of the steps is then saved.
        """
        at = self.position
        done = at.epoch
        if self.masking and done == self.options.epochs:
            self.masking.end(at.step)
            self._log_mask_events(metrics)
        losses = self.validate(lambda: bool(interrupt.signal))
        if losses is None:
            self.save_checkpoint()
            return True
        at.epoch, at.batches, at.seconds = done + 1, 0, 0.0
        state = self.state_dict()
        if metrics:
            metrics.write("seen", at.step, epoch=done, **dataclasses.asdict(self.seen))
            metrics.write("time", at.step, epoch=done, **self.clock.read())
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
