"""What a policy is given, and what it may return."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.scores import ScoreTable
from asrprune.data_pruning.selection import select
from asrprune.errors import UserError

MAX_TIER = 65533  # what a plan puts before the tiers of a policy has two tiers of its own


class Ranking(NamedTuple):
    """The answer of a policy with a fixed budget: what comes first is kept, up to the budget.

    By (tier, priority, index), each lower first. Without tiers a policy returns the bare priority.
    """

    priority: np.ndarray  # (N,) float32
    tier: np.ndarray | None = None  # (N,) uint8 or uint16, up to MAX_TIER


class Selection(NamedTuple):
    """The answer of a policy whose rule decides how much is kept."""

    keep: np.ndarray  # (N,) bool
    weights: np.ndarray | None = None  # (N,) float32, of what is kept; None: 1


class NoScoresYet(Exception):
    """A policy asked for scores before anything was trained on; the plan then keeps everything."""


@dataclass
class Context:
    """N cuts at the start of a pruned cycle. Arrays are (N,) and not to be written to.

    Scores are those of the cuts' utterances. They are gathered when asked for, and a policy that
    asks is one that needs them: unknown cuts are kept first. Where all are unknown because nothing
    was trained on yet, the plan keeps everything; else this is an error.
    """

    index: CutIndex
    scores: ScoreTable
    policy: str
    keep: float  # the share that was asked for
    smooth: bool  # `score` is the running mean, not the last one
    cycle: int
    pruned_cycle: int  # counted from the first pruned one
    progress: float  # 0 in the first pruned cycle, 1 in the last
    rng: np.random.Generator  # keyed by seed and cycle
    cost: np.ndarray  # float32: seconds, or ones
    strata: np.ndarray | None  # of the smallest unsigned type; None: all in one
    budgets: np.ndarray  # (strata,) float64, in units of cost, of `keep`
    visits: np.ndarray  # uint16: cycles in which a cut was kept
    forced: np.ndarray | None  # bool: kept whatever the policy says, for their age
    used_scores: bool = False

    def __len__(self) -> int:
        return len(self.index)

    @property
    def duration(self) -> np.ndarray:
        """Seconds, float32."""
        return self.index.duration

    @property
    def score(self) -> np.ndarray:
        """float32, higher is harder; NaN where unknown."""
        return self._scores("mean" if self.smooth else "last")

    @property
    def mean(self) -> np.ndarray:
        """Running mean of the score, float32; NaN where unknown."""
        return self._scores("mean")

    @property
    def variance(self) -> np.ndarray:
        """Running variance of the score, float32; NaN where unknown."""
        return self._scores("variance")

    @property
    def worse_sum(self) -> np.ndarray:
        """By how much the score got worse in all, float32; NaN where unknown."""
        return self._scores("worse_sum")

    @property
    def worse_times(self) -> np.ndarray:
        """How many times the score got worse, float32; NaN where unknown."""
        return self._scores("worse_times")

    @property
    def known(self) -> np.ndarray:
        """bool"""
        return self.to_cuts(self.scores.count) > 0

    def to_cuts(self, values: np.ndarray) -> np.ndarray:
        """Values (U,) of utterances as those (N,) of their cuts."""
        if len(values) == len(self.index):  # then each cut is an utterance of its own
            return values
        return values[self.index.utterance]

    def uniform(self) -> np.ndarray:
        """Draws from [0, 1), float32."""
        return self.rng.random(len(self), dtype=np.float32)

    def first(
        self, priority: np.ndarray, share: float, tier: np.ndarray | None = None
    ) -> np.ndarray:
        """The cuts (N,) bool that come first, up to a share of the cost of each stratum."""
        return select(priority, self.cost, self.budgets * (share / self.keep), self.strata, tier)

    def _scores(self, name: str) -> np.ndarray:
        self.used_scores = True
        known = self.scores.known
        once = name.startswith("worse") and self.scores.count.max() == 1
        if once and not self.scores.worse_sum.any():
            raise NoScoresYet  # whether a score got worse shows after two
        if not known.any():
            if not self.visits.any():
                raise NoScoresYet
            raise UserError(
                f"data_pruning.policy={self.policy} needs scores, and all are unknown at the start "
                f"of cycle {self.cycle}: update(...) was given none, or none that is finite. Call "
                "update after each training step, and look for NaN in the loss."
            )
        values = getattr(self.scores, name)
        if not known.all():
            values = np.where(known, values, np.float32(np.nan))
        return self.to_cuts(values).astype(np.float32, copy=False)


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Check that a policy's option is within its range.

    Args:
        name: of the option, without ``data_pruning.policy_options.``.
        value: the option's value.
        least: the lowest allowed value.
        most: the highest allowed value.

    Raises:
        UserError: the value is out of the range.
    """
    if not least <= value <= most:
        raise UserError(
            f"data_pruning.policy_options.{name}={value}: must be between {least} and {most}"
        )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a policy's option is one of its choices.

    Args:
        name: of the option, without ``data_pruning.policy_options.``.
        value: the option's value.
        choices: the allowed values.

    Raises:
        UserError: the value is none of the choices.
    """
    if value not in choices:
        raise UserError(
            f"data_pruning.policy_options.{name}={value}: choose one of {', '.join(choices)}"
        )
