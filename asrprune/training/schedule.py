"""Learning rate and loss weights as pure functions of progress, which survives a resume."""

import math
from dataclasses import asdict, dataclass

from asrprune.training.options import OptimizerOptions


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


def loss_weights(step: int, warmup_steps: int, simple_scale: float) -> tuple[float, float]:
    """Weights of the simple and of the pruned loss at an optimiser step.

    Over the warm-up the simple one falls from 1 to ``simple_scale`` and the pruned one rises from
    0.1 to 1: the simple loss's alignments choose what the pruned loss sees, and they must be
    trained before it can be trusted.
    """
    done = 1.0 if step >= warmup_steps else step / warmup_steps
    return 1.0 - done * (1.0 - simple_scale), 0.1 + 0.9 * done


@dataclass
class Progress:
    """Maps elapsed epochs (a fraction counts) to progress in 0..1.

    When a run is given another number of epochs, progress goes on from where it stood over the new
    remainder, so that the schedule always reaches its end and the rate never jumps. A run that had
    finished its schedule is the exception: its rate would stay at the final one, so its progress is
    counted anew as elapsed / epochs.
    """

    epochs: int
    since: float = 0.0  # elapsed epochs when `epochs` was last changed
    base: float = 0.0  # progress at that time

    def at(self, elapsed: float) -> float:
        """Progress after ``elapsed`` epochs; it waits at ``base`` when an epoch starts again."""
        elapsed = max(elapsed, self.since)
        if elapsed >= self.epochs:
            return 1.0
        return self.base + (1 - self.base) * (elapsed - self.since) / (self.epochs - self.since)

    def with_epochs(self, epochs: int, elapsed: float) -> "Progress":
        """The progress of the same training, to be continued to another number of epochs."""
        if epochs == self.epochs:
            return self
        if elapsed >= self.epochs:
            return Progress(epochs)
        return Progress(epochs, since=elapsed, base=self.at(elapsed))

    def state_dict(self) -> dict[str, float]:
        """Plain values for a checkpoint."""
        return asdict(self)
