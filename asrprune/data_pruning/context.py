"""Define what a policy is given (`Context`) and what it may return (`Ranking`, `Selection`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.scores import ScoreTable
from asrprune.data_pruning.selection import select

MAX_TIER = 65533  # the plan puts two tiers of its own before those of a policy


class Ranking(NamedTuple):
    """The answer of a policy with a fixed budget: an order of the cuts.

    Cuts are ordered by (tier, priority, index), lowest first. The first cuts are kept, up to the
    budget. A policy without tiers may return the bare priority.
    """

    priority: np.ndarray  # (N,) float32
    tier: np.ndarray | None = None  # (N,) uint8 or uint16, up to MAX_TIER


class Selection(NamedTuple):
    """The answer of a policy whose rule decides how much is kept."""

    keep: np.ndarray  # (N,) bool
    weights: np.ndarray | None = None  # (N,) float32, used for kept cuts only; None: all 1


class NoScoresYet(Exception):
    """A policy asked for scores that do not exist yet. The plan then keeps all cuts."""


@dataclass
class Context:
    """What a policy knows of the N cuts at the start of a pruned cycle.

    Arrays are (N,). A policy must not write to them. The score of a cut is that of its utterance.

    If a policy reads scores, the plan keeps cuts without a score first. If no cut has a score
    because nothing was trained on yet, the plan keeps all cuts. If no cut has a score after
    training, reading scores is an error.
    """

    index: CutIndex
    scores: ScoreTable
    policy: str
    keep: float  # the keep ratio that the options ask for
    smooth: bool  # `score` is the typical score, not the last score
    cycle: int
    pruned_cycle: int  # counted from the first pruned cycle
    progress: float  # 0 in the first pruned cycle, 1 in the last
    rng: np.random.Generator  # keyed by seed and cycle
    cost: np.ndarray  # float32: seconds, or ones
    strata: np.ndarray | None  # stratum of each cut, smallest unsigned type; None: one stratum
    budgets: np.ndarray  # (strata,) float64: the share `keep` of each stratum, in units of cost
    visits: np.ndarray  # uint16: cycles in which a cut was kept
    forced: np.ndarray | None  # bool: cuts kept for their age, whatever the policy says
    used_scores: bool = False  # whether the policy has read scores

    def __len__(self) -> int:
        return len(self.index)

    @property
    def duration(self) -> np.ndarray:
        """Duration of each cut in seconds, float32."""
        return self.index.duration

    @property
    def score(self) -> np.ndarray:
        """Score of each cut, float32. Higher is harder; NaN where unknown."""
        return self._scores("typical" if self.smooth else "last")

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
        """Sum of all increases of the score, float32; NaN where unknown."""
        return self._scores("worse_sum")

    @property
    def worse_times(self) -> np.ndarray:
        """Number of increases of the score, float32; NaN where unknown."""
        return self._scores("worse_times")

    @property
    def known(self) -> np.ndarray:
        """Whether each cut has a score, bool."""
        return self.to_cuts(self.scores.count) > 0

    def to_cuts(self, values: np.ndarray) -> np.ndarray:
        """Return the values (N,) of the cuts from the values (U,) of their utterances."""
        if len(values) == len(self.index):  # then each cut is an utterance of its own
            return values
        return values[self.index.utterance]

    def uniform(self) -> np.ndarray:
        """Return a uniform draw from [0, 1) for each cut, float32."""
        return self.rng.random(len(self), dtype=np.float32)

    def first(
        self, priority: np.ndarray, share: float, tier: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the cuts (N,) bool that come first, up to a share of each stratum's cost.

        Args:
            priority: (N,) float32, lower comes first.
            share: share of the cost of each stratum.
            tier: (N,) uint8 or uint16, compared before the priority; None: all alike.
        """
        return select(priority, self.cost, self.budgets * (share / self.keep), self.strata, tier)

    def _scores(self, name: str) -> np.ndarray:
        self.used_scores = True
        known = self.scores.known
        once = name.startswith("worse") and self.scores.count.max() == 1
        if once and not self.scores.worse_sum.any():
            raise NoScoresYet  # a score can get worse only after a second visit
        if not known.any():
            if not self.visits.any():
                raise NoScoresYet
            raise UserError(
                f"data_pruning.policy={self.policy} needs scores, and all are unknown at the start "
                f"of cycle {self.cycle}: update(...) got no finite score. Call update after each "
                "training step, and look for NaN in the loss."
            )
        values = getattr(self.scores, name)
        if not known.all():
            values = np.where(known, values, np.float32(np.nan))
        return self.to_cuts(values).astype(np.float32, copy=False)


def check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    """Check that a policy's option is within its range.

    Args:
        name: of the option, without ``data_pruning.policy_options.``.
        value: the option's value.
        minimum: the lowest allowed value.
        maximum: the highest allowed value.

    Raises:
        UserError: the value is out of the range.
    """
    if not minimum <= value <= maximum:
        raise UserError(
            f"data_pruning.policy_options.{name}={value}: must be between {minimum} and {maximum}"
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
