"""Hold the scores of utterances: gathered while training, merged over ranks once a cycle."""

from typing import Any

import numpy as np
import torch

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import chunks

_TABLE = ("last", "typical", "mean", "variance", "worse_sum", "worse_times", "count")
_MAXIMUM = np.iinfo(np.uint16).max
# Sums are integers in units of 2^-30, so that the order of additions, on any ranks, changes no bit.
UNIT = 2.0**-30
_LARGEST = 2.0**26  # higher scores count as this score, so that sums of 64 bits do not overflow
# In logarithms, a lower score counts as this score: how close a small loss comes to 0 is chance.
_SMALLEST = 2.0**-13
LOSS_CLASSES = 4096  # classes of batches: enough for 12 sizes of a model in 340 languages


class Detrend:
    """Divides the losses of a batch by the trend: how large losses are at the time of the visit.

    Losses fall several-fold inside the first cycle. A raw first score therefore says when an
    utterance was visited, and not how difficult it is. The trend is the ratio of two sums over the
    latest batches: the losses of the visited utterances now, over the scores that are expected of
    these utterances. Each batch multiplies the weight of all earlier batches by ``memory``. The
    expected scores are those of the *visited* utterances, so a keep-set of easy utterances does not
    pull the trend down. The sums are over square roots, and their ratio is squared, so that neither
    a few large losses nor losses near 0 decide.

    Batches may be of several classes, such as sub-networks of several sizes. All losses of one
    class may be higher than those of another. Losses of classes above 0 are first divided by the
    level of their class. The level is the same ratio over the batches of that class, relative to
    the trend. (A class has no trend of its own: the trend of a rare class would be out of date
    while losses fall. A level changes little.)
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory = memory
        # All are sums of square roots. totals sum losses. weights[0] sums expected scores. The
        # other weights sum the losses that the trend expects of the batches of their class.
        self.totals, self.weights = np.zeros((2, LOSS_CLASSES))

    def __call__(
        self, values: np.ndarray, loss_class: int = 0, expected: np.ndarray | None = None
    ) -> np.ndarray:
        """Divide ``values`` (n,) of a batch by the trend up to and with this batch.

        Args:
            values: (n,) losses of the batch, all finite.
            loss_class: class of the batch, below `LOSS_CLASSES`.
            expected: (n,) scores of these utterances in the table so far. An utterance without a
                score has 1, the level of all utterances. None: 1 for all.

        Returns:
            The scores (n,) float64.

        Raises:
            UserError: no loss so far is above 0.
        """
        if not len(values):
            return values
        total = _size(values)
        weight = _size(np.ones(len(values)) if expected is None else expected)
        if loss_class:
            trend = self.totals[0] / self.weights[0] if self.weights[0] else total / weight
            factor = self._factor(loss_class, total, weight * trend)
            values, total = values * factor**2, total * factor
        return values * self._factor(0, total, weight) ** 2

    def state(self) -> np.ndarray:
        """Return the totals and weights (LOSS_CLASSES, 2)."""
        return np.stack([self.totals, self.weights], 1)

    def load(self, state: np.ndarray) -> None:
        """Restore what `state` returned."""
        self.totals[:], self.weights[:] = state.T

    def _factor(self, loss_class: int, total: float, weight: float) -> float:
        """Add a batch to the running sums of a class, and return the inverse of their ratio."""
        self.totals[loss_class] = total = self.memory * self.totals[loss_class] + total
        self.weights[loss_class] = weight = self.memory * self.weights[loss_class] + weight
        if total <= 0:
            raise UserError(
                "data_pruning.detrend divides losses by their trend, and no loss so far is above "
                "0. Check what update(...) is given, or set data_pruning.detrend=false."
            )
        return weight / total


class ScoreTable:
    """The scores of U utterances. A score is *known* after one finite value.

    Within a cycle `add` gathers sums. At the end of the cycle the caller sums `pending` over the
    ranks, and `merge` folds the cycle's mean value of each visited utterance into the table. With
    ``detrend`` all scores are on one scale, whenever they were renewed: see `Detrend` and `merge`.

    The losses of two visits of an utterance differ by chance: by what SpecAugment masks, for
    example. In a training that has almost converged, utterances may differ no more than that. The
    typical score therefore ranks utterances by difficulty better than the last score does.

    - ``last`` (U,) float32: the last score
    - ``typical`` (U,) float32: the geometric mean of the scores of the first ``1 / (1 - ema)``
      cycles, then an exponential average of their logarithms, ``t' = t^ema s^(1 - ema)``
    - ``mean``, ``variance`` (U,) float32: exponential averages over cycles,
      ``m' = a m + (1 - a) s`` and ``v' = a (v + (1 - a) (s - m)^2)`` with ``a = ema``
    - ``worse_sum`` (U,) float32, ``worse_times`` (U,) uint16: by how much, and how often, a score
      got worse from one visited cycle to the next (forgetting)
    - ``count`` (U,) uint16: cycles with a score; 0: unknown, and the other arrays have 0 too
    """

    def __init__(self, num_utterances: int, ema: float = 0.8, detrend: bool = True) -> None:
        self.ema = ema
        self.detrend = Detrend() if detrend else None
        self.last, self.typical, self.mean, self.variance, self.worse_sum = np.zeros(
            (5, num_utterances), np.float32
        )
        self.worse_times, self.count = np.zeros((2, num_utterances), np.uint16)
        self._sum: np.ndarray | None = None  # made when the first value comes
        self._visits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.last)

    @property
    def known(self) -> np.ndarray:
        """Whether the score of each utterance is known, (U,) bool."""
        return self.count > 0

    def add(self, utterances: np.ndarray, values: np.ndarray, loss_class: int = 0) -> None:
        """Add the scores of a batch. NaN and infinity are ignored.

        Args:
            utterances: (n,) numbers of the utterances.
            values: (n,) scores of these utterances, before `Detrend`.
            loss_class: class of the batch, below `LOSS_CLASSES`; see `Detrend`.

        Raises:
            UserError: as in `Detrend`.
        """
        values = np.asarray(values, dtype=np.float64)
        finite = np.isfinite(values)
        utterances, values = np.asarray(utterances)[finite], values[finite]
        if self.detrend is not None:
            values = self.detrend(values, loss_class, self._expected(utterances))
        total, visits = self._pending()
        units = np.rint(np.clip(values, -_LARGEST, _LARGEST) / UNIT).astype(np.int64)
        np.add.at(total, utterances, units)
        np.add.at(visits, utterances, 1)

    def pending(self) -> dict[str, torch.Tensor]:
        """Return what this rank gathered since the last merge, to be summed over ranks.

        The tensors are ``sum`` (U,) int64 in units of 2^-30, ``visits`` (U,) int32 and ``trend``
        (LOSS_CLASSES, 3), whose last column counts ranks. ``sum`` and ``visits`` share memory with
        the table.
        """
        total, visits = self._pending()
        return {
            "sum": torch.from_numpy(total),
            "visits": torch.from_numpy(visits),
            "trend": self.trend,
        }

    @property
    def trend(self) -> torch.Tensor:
        """The totals and weights of the trend of each class, and 1 for this rank.

        The shape is (LOSS_CLASSES, 3), float64.
        """
        trend = (self.detrend or Detrend()).state()
        return torch.from_numpy(np.pad(trend, ((0, 0), (0, 1)), constant_values=1))

    @property
    def has_pending(self) -> bool:
        """Whether any score was gathered since the last merge."""
        return self._sum is not None

    def load_pending(self, pending: dict[str, torch.Tensor]) -> None:
        """Restore the ``sum`` and ``visits`` that `pending` returned."""
        self._check_size(pending["sum"])
        self._sum = pending["sum"].numpy().copy()
        self._visits = pending["visits"].numpy().copy()

    def load_trend(self, trend: torch.Tensor) -> None:
        """Restore a `trend`, or the mean of several ranks' trends from their sum."""
        if self.detrend is not None:
            states = trend.numpy()
            self.detrend.load(states[:, :2] / states[:, 2:])

    def merge(self, pending: dict[str, torch.Tensor]) -> None:
        """Fold the sum of `pending` over all ranks into the table, and drop what is pending.

        The same call on each rank leaves the same table. With ``detrend`` the cycle's scores are
        first multiplied by one factor. This makes their geometric mean the same as that of the
        typical scores of these utterances. Without the factor, errors of the trend would add up
        over the cycles in the renewed scores: the trend lags behind falling losses, for example.
        """
        self._check_size(pending["sum"])
        total, visits = pending["sum"].numpy(), pending["visits"].numpy()
        scale = self._scale(total, visits) if self.detrend else 1.0
        for part in chunks(len(self)):
            seen = np.flatnonzero(visits[part])
            self._fold(seen + part.start, scale * _means(total[part][seen], visits[part][seen]))
        self.load_trend(pending["trend"])
        self._sum = self._visits = None

    def state_dict(self) -> dict[str, Any]:
        """Return the table, which is equal on all ranks.

        Pending scores and the trend differ between ranks, and are not part of it.
        """
        # 16-bit counts as int16, which every torch can store
        return {
            name: torch.from_numpy(
                array.view(np.int16) if array.dtype == np.uint16 else array
            ).clone()
            for name in _TABLE
            for array in [getattr(self, name)]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; pending scores are dropped.

        Args:
            state: the state, of the same number of utterances.

        Raises:
            UserError: the state has another number of utterances.
        """
        self._check_size(state["last"])
        for name in _TABLE:
            array = getattr(self, name)
            array[:] = state[name].numpy().view(array.dtype)
        self._sum = self._visits = None

    def _pending(self) -> tuple[np.ndarray, np.ndarray]:
        if self._sum is None or self._visits is None:
            self._sum = np.zeros(len(self), np.int64)
            self._visits = np.zeros(len(self), np.int32)
        return self._sum, self._visits

    def _scale(self, total: np.ndarray, visits: np.ndarray) -> float:
        """Return the factor that brings the scores of a cycle to the scale of the table."""
        excess, count = 0.0, 0
        for part in chunks(len(self)):
            seen = np.flatnonzero(visits[part])
            excess += _logarithms(self._expected(seen + part.start)).sum()
            excess -= _logarithms(_means(total[part][seen], visits[part][seen])).sum()
            count += len(seen)
        return float(np.exp(excess / max(count, 1)))

    def _expected(self, at: np.ndarray) -> np.ndarray:
        """Return the expected scores (n,) of utterances ``at`` (n,); 1 if the score is unknown."""
        return np.where(self.count[at] > 0, self.typical[at], np.float32(1))

    def _fold(self, at: np.ndarray, values: np.ndarray) -> None:
        """Fold the mean values (n,) of a cycle into the distinct utterances ``at`` (n,)."""
        score = values.astype(np.float32)
        old = self.count[at] > 0
        worse = np.where(old, np.maximum(score - self.last[at], 0), 0)
        self.worse_sum[at] += worse
        times = self.worse_times[at]
        self.worse_times[at] = times + ((worse > 0) & (times < _MAXIMUM))
        past = np.float32(self.ema)
        share = np.maximum(1 - self.ema, 1 / (self.count[at] + 1.0))  # of this score; 1 for a first
        logarithm = _logarithms(np.where(old, self.typical[at], 1))
        logarithm += share * (_logarithms(values) - logarithm)
        self.typical[at] = np.exp(logarithm)
        away = score - self.mean[at]
        spread = past * (self.variance[at] + (1 - past) * away * away)
        self.variance[at] = np.where(old, spread, 0)
        self.mean[at] = np.where(old, self.mean[at] + (1 - past) * away, score)
        self.last[at] = score
        self.count[at] += self.count[at] < _MAXIMUM

    def _check_size(self, tensor: torch.Tensor) -> None:
        if len(tensor) != len(self):
            raise UserError(
                f"the saved scores are of {len(tensor)} utterances, and the training manifest has "
                f"{len(self)}. Restore the manifest of the saved state, or train in a new folder."
            )


def _means(total: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Return the mean scores (n,) float64 from sums in units of 2^-30."""
    return total * UNIT / visits


def _logarithms(values: np.ndarray) -> np.ndarray:
    """Return the logarithms (n,) float64 of scores, at least that of `_SMALLEST`."""
    return np.log(np.maximum(values, _SMALLEST), dtype=np.float64)


def _size(values: np.ndarray) -> float:
    """Return the sum of square roots. A loss that is below 0 by rounding counts as 0."""
    return float(np.sqrt(np.maximum(values, 0), dtype=np.float64).sum())
