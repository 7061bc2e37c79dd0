"""Scores of utterances as dense arrays: gathered while training, merged over ranks once a cycle."""

from typing import Any

import numpy as np
import torch

from asrprune.data_pruning.index import chunks
from asrprune.errors import UserError

_TABLE = ("last", "mean", "variance", "worse_sum", "worse_times", "count")
_MOST = np.iinfo(np.uint16).max
KINDS = 4096  # of batches: those of 12 sizes of a model in 340 languages


class Detrend:
    """Divides values by their running mean at the time of the visit.

    Losses fall several-fold inside the first cycle, so that a raw first score is a date and not a
    difficulty. The running mean is of batches, each of which fades by ``memory`` with the next one;
    it counts utterances, not batches, alike.

    Batches may be of several kinds, such as of sub-networks of several sizes, and all values of one
    higher than of another. Those of kinds above 0 are first divided by their level: the ratio to
    the mean of all, which is a running one too, over the kind's own batches. (A mean for each kind
    alone would be old where a kind is rare and losses fall; a ratio may be old.)
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory = memory
        # [0]: of the mean; [kind]: of values over what the mean was then
        self.totals, self.weights = np.zeros((2, KINDS))

    def __call__(self, values: np.ndarray, kind: int = 0) -> np.ndarray:
        """Known ``values`` (n,) of a batch, divided by the mean up to and with this batch.

        :raises UserError: the mean is not positive.
        """
        if not len(values):
            return values
        if kind:
            mean = self.totals[0] / self.weights[0] if self.weights[0] else values.mean()
            values = values * self._factor(kind, values.sum(), len(values) * mean)
        return values * self._factor(0, values.sum(), len(values))

    def state(self) -> np.ndarray:
        """Totals and weights (KINDS, 2)."""
        return np.stack([self.totals, self.weights], 1)

    def load(self, state: np.ndarray) -> None:
        """The inverse of `state`; older ones (2,) know no kinds."""
        state = state.reshape(-1, 2)
        self.totals[:], self.weights[:] = 0, 0
        self.totals[: len(state)], self.weights[: len(state)] = state.T

    def _factor(self, kind: int, total: float, weight: float) -> float:
        """What divides by a running mean, after a batch is added to it."""
        self.totals[kind] = total = self.memory * self.totals[kind] + total
        self.weights[kind] = weight = self.memory * self.weights[kind] + weight
        if total <= 0:
            raise UserError(
                "data_pruning.detrend divides scores by their running mean, and that is "
                f"{total / weight:g}: scores must be positive, or detrend=false"
            )
        return weight / total


class ScoreTable:
    """What is known of each of U utterances. A score is *known* after one finite value.

    Within a cycle :meth:`add` gathers sums; at its end the caller sums :meth:`pending` over the
    ranks and :meth:`merge` folds the cycle's mean value of each visited utterance into

    - ``last`` (U,) float32: the last score
    - ``mean``, ``variance`` (U,) float32: exponential averages over cycles,
      ``m' = a m + (1 - a) s`` and ``v' = a (v + (1 - a) (s - m)^2)`` with ``a = ema``
    - ``worse_sum`` (U,) float32, ``worse_times`` (U,) uint16: by how much, and how often, a score
      got worse from one visited cycle to the next (forgetting)
    - ``count`` (U,) uint16: cycles with a score; 0: unknown, all others are 0 then
    """

    def __init__(self, num_utterances: int, ema: float = 0.5, detrend: bool = True) -> None:
        self.ema = ema
        self.detrend = Detrend() if detrend else None
        self.last, self.mean, self.variance, self.worse_sum = np.zeros(
            (4, num_utterances), np.float32
        )
        self.worse_times, self.count = np.zeros((2, num_utterances), np.uint16)
        self._sum: np.ndarray | None = None  # made when the first value comes
        self._visits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.last)

    @property
    def known(self) -> np.ndarray:
        """(U,) bool"""
        return self.count > 0

    def add(self, utterances: np.ndarray, values: np.ndarray, kind: int = 0) -> None:
        """Scores ``values`` (n,) of ``utterances`` (n,) in a batch; NaN and infinity are ignored.

        :param kind: of the batch, below :data:`KINDS`; see :class:`Detrend`.
        :raises UserError: as :class:`Detrend`.
        """
        values = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(values)
        utterances, values = np.asarray(utterances)[finite], values[finite]
        if self.detrend is not None:
            values = self.detrend(values, kind)
        total, visits = self._pending()
        np.add.at(total, utterances, values)
        np.add.at(visits, utterances, 1)

    def pending(self) -> dict[str, torch.Tensor]:
        """What this rank gathered since the last merge, to be summed over ranks tensor by tensor.

        The large tensors share memory with the table: an all-reduce in place changes it, and
        :meth:`merge` or :meth:`load_pending` is then to follow.
        """
        total, visits = self._pending()
        trend = (self.detrend or Detrend()).state()
        return {
            "sum": torch.from_numpy(total),
            "visits": torch.from_numpy(visits),
            # a third column counts the ranks, whose mean is wanted
            "trend": torch.from_numpy(np.pad(trend, ((0, 0), (0, 1)), constant_values=1)),
        }

    def load_pending(self, pending: dict[str, torch.Tensor]) -> None:
        """Put back what :meth:`pending` gave, as a restored rank does."""
        self._check_size(pending["sum"])
        self._sum = pending["sum"].numpy().copy()
        self._visits = pending["visits"].numpy().copy()
        self._load_trend(pending["trend"])

    def merge(self, pending: dict[str, torch.Tensor]) -> None:
        """Fold the sum over all ranks of :meth:`pending` into the table, and forget what is
        pending. The same call on each rank leaves the same table.
        """
        self._check_size(pending["sum"])
        total, visits = pending["sum"].numpy(), pending["visits"].numpy()
        for part in chunks(len(self)):
            seen = np.flatnonzero(visits[part])
            self._fold(seen + part.start, total[part][seen] / visits[part][seen])
        self._load_trend(pending["trend"])
        self._sum = self._visits = None

    def state_dict(self) -> dict[str, Any]:
        """The table, equal on all ranks; what is pending is each rank's own."""
        # 16-bit counts as int16, which every torch can store
        state: dict[str, Any] = {
            name: torch.from_numpy(
                array.view(np.int16) if array.dtype == np.uint16 else array
            ).clone()
            for name in _TABLE
            for array in [getattr(self, name)]
        }
        state["trend"] = self._trend()
        return state

    def _trend(self) -> list[float]:
        """Total and weight of each running mean; empty without one."""
        return [] if self.detrend is None else self.detrend.state().flatten().tolist()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """:raises UserError: the state is of another number of utterances."""
        self._check_size(state["last"])
        for name in _TABLE:
            array = getattr(self, name)
            array[:] = state[name].numpy().view(array.dtype)
        if self.detrend is not None and state["trend"]:
            self.detrend.load(np.array(state["trend"]))
        self._sum = self._visits = None

    def _pending(self) -> tuple[np.ndarray, np.ndarray]:
        if self._sum is None or self._visits is None:
            self._sum, self._visits = np.zeros(len(self)), np.zeros(len(self), np.int32)
        return self._sum, self._visits

    def _load_trend(self, trend: torch.Tensor) -> None:
        if self.detrend is not None:
            states = trend.numpy().reshape(-1, 3)  # an older one (3,) knows no kinds
            self.detrend.load(states[:, :2] / states[:, 2:])

    def _fold(self, at: np.ndarray, values: np.ndarray) -> None:
        """Mean values (n,) of a cycle, of the distinct utterances ``at`` (n,)."""
        score = values.astype(np.float32)
        old = self.count[at] > 0
        worse = np.where(old, np.maximum(score - self.last[at], 0), 0)
        self.worse_sum[at] += worse
        times = self.worse_times[at]
        self.worse_times[at] = times + ((worse > 0) & (times < _MOST))
        past = np.float32(self.ema)
        away = score - self.mean[at]
        spread = past * (self.variance[at] + (1 - past) * away * away)
        self.variance[at] = np.where(old, spread, 0)
        self.mean[at] = np.where(old, self.mean[at] + (1 - past) * away, score)
        self.last[at] = score
        self.count[at] += self.count[at] < _MOST

    def _check_size(self, tensor: torch.Tensor) -> None:
        if len(tensor) != len(self):
            raise UserError(
                f"the saved scores are of {len(tensor)} utterances, and the training manifest has "
                f"{len(self)}"
            )
