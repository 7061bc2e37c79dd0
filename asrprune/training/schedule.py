"""Compute the learning rate and the loss weights as pure functions of progress.

Progress is saved in checkpoints, so a resumed training goes on with the same values.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from asrprune.training.options import OptimizerOptions
from asrprune.transducer.options import LossOptions


def rate_factor(progress: float, options: OptimizerOptions) -> float:
    """Return the learning rate at ``progress`` (0 to 1) as a share of the peak rate.

    The rate rises linearly over the share ``warmup`` of the training. Then it falls to ``final_lr``
    by a cosine or linearly, or stays constant.
    """
    if progress < options.warmup:
        return progress / options.warmup
    if options.schedule == "constant" or options.warmup == 1:
        return 1.0
    done = min(1.0, (progress - options.warmup) / (1 - options.warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if options.schedule == "cosine" else 1 - done
    return options.final_lr + (1 - options.final_lr) * left


def loss_weights(progress: float, options: LossOptions) -> tuple[float, float]:
    """Return the weights of the simple and of the pruned loss at ``progress`` (0 to 1).

    Over the share ``warmup`` of the training, the weight of the simple loss falls from 1 to
    ``simple_scale``. The weight of the pruned loss rises from 0.1 to 1. The alignments of the
    simple loss choose the prune range of the pruned loss, so they must be trained first.
    """
    done = 1.0 if progress >= options.warmup else progress / options.warmup
    return 1.0 - done * (1.0 - options.simple_scale), 0.1 + 0.9 * done


@dataclass
class Progress:
    """Map elapsed epochs to progress from 0 to 1, the trained share of the planned audio.

    Elapsed epochs may be a fraction. Epochs that train on less audio move the progress less. So the
    learning rate falls as fast as in a training on all data that sees the same amount of audio.

    A resumed training may have another number of epochs. Then progress goes on from its present
    value, and reaches 1 at the new end. So the schedule always reaches its end, and the rate never
    jumps. A training that has finished its schedule is an exception, because its rate would stay at
    the final rate. Its progress becomes the trained share of the audio of all new planned epochs.

    The furthest progress never falls. Masks and the weights of the losses depend on the furthest
    progress. So a finished training that trains longer keeps its final sparsity, and does not warm
    up its losses again.
    """

    shares: list[float]  # planned share of the audio that each epoch trains on
    since: float = 0.0  # elapsed epochs when `shares` was last changed
    base: float = 0.0  # progress when `shares` was last changed
    furthest: float = 0.0  # the highest progress so far

    def at(self, elapsed: float) -> float:
        """Return the progress after ``elapsed`` epochs.

        When an epoch starts again, progress stays at ``base`` until ``since`` epochs have elapsed.
        """
        elapsed = max(elapsed, self.since)
        if elapsed >= len(self.shares):
            return 1.0
        begin, end = self._audio(self.since), self._audio(len(self.shares))
        return self.base + (1 - self.base) * (self._audio(elapsed) - begin) / (end - begin)

    def reach(self, elapsed: float) -> float:
        """Record that ``elapsed`` epochs have elapsed, and return the furthest progress."""
        self.furthest = max(self.furthest, self.at(elapsed))
        return self.furthest

    def with_shares(self, shares: list[float], elapsed: float) -> "Progress":
        """Return the progress of the same training with other planned epochs.

        Args:
            shares: the new planned share of each epoch.
            elapsed: the elapsed epochs.
        """
        if shares == self.shares:
            return self
        furthest = self.reach(elapsed)
        if elapsed >= len(self.shares):
            return Progress(shares, furthest=furthest)
        return Progress(shares, elapsed, self.at(elapsed), furthest)

    def restarted(self, elapsed: float) -> "Progress":
        """Return the progress of the same training when its present epoch starts again.

        The progress does not change until ``elapsed`` epochs have elapsed again.
        """
        return Progress(self.shares, elapsed, self.at(elapsed), self.reach(elapsed))

    def _audio(self, elapsed: float) -> float:
        """Return the audio after ``elapsed`` epochs, in epochs of all data."""
        whole = int(elapsed)
        part = (elapsed - whole) * self.shares[whole] if whole < len(self.shares) else 0.0
        return sum(self.shares[:whole]) + part

    def state_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a checkpoint."""
        return asdict(self)
