"""Learning rate and loss weights as pure functions of progress, which survives a resume."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from asrprune.training.options import OptimizerOptions
from asrprune.transducer.options import LossOptions


def rate_factor(progress: float, options: OptimizerOptions) -> float:
    """The share of the peak learning rate at ``progress`` (0 to 1).

    A linear rise over the first ``warmup`` of the training, then cosine, linear or no decay to
    ``final_lr`` at the end.
    """
    if progress < options.warmup:
        return progress / options.warmup
    if options.schedule == "constant" or options.warmup == 1:
        return 1.0
    done = min(1.0, (progress - options.warmup) / (1 - options.warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.final_lr + (1 - options.final_lr) * left


def loss_weights(progress: float, options: LossOptions) -> tuple[float, float]:
    """Weights of the simple and of the pruned loss at ``progress`` (0 to 1).

    Over the first ``warmup`` of the training the simple one falls from 1 to ``simple_scale`` and
    the pruned one rises from 0.1 to 1: the simple loss's alignments choose what the pruned loss
    sees, and they must be trained before it can be trusted.
    """
    done = 1.0 if progress >= options.warmup else progress / options.warmup
    return 1.0 - done * (1.0 - options.simple_scale), 0.1 + 0.9 * done


@dataclass
class Progress:
    """Maps elapsed epochs (a fraction counts) to progress in 0..1: the share of the planned audio.

    Epochs that train on less audio move the progress less. The learning rate thus falls as fast as
    in a training on all data that sees as much audio.

    When a run is given another number of epochs, progress goes on from where it stood over the new
    remainder, so that the schedule always reaches its end and the rate never jumps. A run that had
    finished its schedule is the exception: its rate would stay at the final one, so its progress is
    counted anew over all epochs.

    ``furthest`` never goes back. Masks and the weights of the losses follow it: a finished run that
    trains longer keeps its final sparsity, and its losses are not warmed up again.
    """

    shares: list[float]  # of the audio that each epoch trains on, as planned
    since: float = 0.0  # elapsed epochs when `shares` was last changed
    base: float = 0.0  # progress at that time
    furthest: float = 0.0  # the highest progress that the training has come to

    def at(self, elapsed: float) -> float:
        """Progress after ``elapsed`` epochs; it waits at ``base`` when an epoch starts again."""
        elapsed = max(elapsed, self.since)
        if elapsed >= len(self.shares):
            return 1.0
        begin, end = self._audio(self.since), self._audio(len(self.shares))
        return self.base + (1 - self.base) * (self._audio(elapsed) - begin) / (end - begin)

    def reach(self, elapsed: float) -> float:
        """Note that the training comes to ``elapsed`` epochs; returns the furthest progress."""
        self.furthest = max(self.furthest, self.at(elapsed))
        return self.furthest

    def with_shares(self, shares: list[float], elapsed: float) -> "Progress":
        """The progress of the same training, to be continued with other epochs than planned."""
        if shares == self.shares:
            return self
        furthest = self.reach(elapsed)
        if elapsed >= len(self.shares):
            return Progress(shares, furthest=furthest)
        return Progress(shares, elapsed, self.at(elapsed), furthest)

    def restarted(self, elapsed: float) -> "Progress":
        """The progress of the same training when its present epoch is about to start again.

        It waits until the training has come to ``elapsed`` epochs again.
        """
        return Progress(self.shares, elapsed, self.at(elapsed), self.reach(elapsed))

    def _audio(self, elapsed: float) -> float:
        """Return the audio after ``elapsed`` epochs, in epochs of all data."""
        whole = int(elapsed)
        part = (elapsed - whole) * self.shares[whole] if whole < len(self.shares) else 0.0
        return sum(self.shares[:whole]) + part

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)
