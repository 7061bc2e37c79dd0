"""Draw batches of the cuts that a plan keeps, with a stock bucketing sampler of lhotse."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler

from asrprune.base.randomness import key_to_seed
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import KeptCuts
from asrprune.data_pruning.monolingual import LanguageSchedule, monolingual_batches
from asrprune.data_pruning.plan import Plan


class Drawing:
    """Draws the batches of an epoch, for one rank."""

    def __init__(
        self,
        cuts: CutSet,
        index: CutIndex,
        turns: LanguageSchedule | None,
        *,
        duration_bins: list[float],
        limits: dict[str, Any],
        **how: Any,
    ):
        """Bind the cuts to the settings of batches.

        Args:
            cuts: the training cuts, in memory or lazy.
            index: of these cuts.
            turns: schedule of batches of one language each; None: languages are mixed.
            duration_bins: edges of the buckets in seconds.
            limits: max_duration, max_cuts and buffer_size, as lhotse's sampler takes them.
            how: shuffle, drop_last, seed, rank and world_size, as lhotse's sampler takes them.
        """
        self.index, self.turns = index, turns
        self._kept = KeptCuts(cuts, index, how["seed"], how["world_size"])
        self._bins = [float(edge) for edge in duration_bins]
        self._limits, self._how = limits, how
        self._seconds_left: Callable[[], np.ndarray] | None = None
        self._share_left = 1.0

    def drop_time(self, seconds_left: Callable[[], np.ndarray], share: float) -> None:
        """Fill batches by what time dropping leaves of cuts; see `PruningSampler.drop_time`."""
        self._seconds_left, self._share_left = seconds_left, share

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide, besides the plan, which cuts are in which batch."""
        return {
            **{name: self._how[name] for name in ("world_size", "seed", "shuffle", "drop_last")},
            **self._limits,
            "duration_bins": list(self._bins),
            **({"accumulate": self.turns.accumulate} if self.turns else {}),
        }

    def batches(self, plan: Plan, epoch: int) -> Iterator[CutSet]:
        """Return the batches of an epoch, from the first batch on."""
        seconds_left = self._seconds_left if plan.drops_time else None
        self._kept.seconds_left = None if seconds_left is None else seconds_left()
        self._kept.epoch = epoch
        share = 1.0 if seconds_left is None else self._share_left
        bins = [edge * share for edge in self._bins]
        if self.turns:
            return self._by_language(self.turns, plan, epoch, bins)
        keep = None if plan.keep.all() else plan.keep
        return self._bucketed(self._kept.part(keep), bins, epoch)

    def _bucketed(
        self, cuts: KeptCuts, bins: list[float], epoch: int, **other: Any
    ) -> Iterator[CutSet]:
        """Return batches of cuts of similar durations, in the order of the epoch."""
        sampler = DynamicBucketingSampler(
            CutSet(cuts),
            **self._limits,
            num_buckets=len(bins) + 1,
            duration_bins=bins,
            **{**self._how, **other},
        )
        sampler.set_epoch(epoch)
        return iter(sampler)

    def _by_language(
        self, turns: LanguageSchedule, plan: Plan, epoch: int, bins: list[float]
    ) -> Iterator[CutSet]:
        codes, _ = self.index.groups["language"]

        def draw(language: int, number: int) -> Iterator[CutSet]:
            suffix = f"_pass{number}" if number else ""  # a repeated cut gets draws of its own
            cuts = self._kept.part(plan.keep & (codes == language), suffix)
            seed = key_to_seed("pass", self._how["seed"], language, number) % 2**31
            return self._bucketed(cuts, bins, epoch, seed=seed, rank=0, world_size=1)

        seconds = float(self.index.duration[plan.keep].sum(dtype=np.float64))
        ranks = self._how["rank"], self._how["world_size"]
        return monolingual_batches(turns, epoch, seconds, draw, *ranks)
