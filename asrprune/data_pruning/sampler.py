"""A Lhotse sampler whose batches are of what the present cycle's plan keeps.

It wraps a stock `DynamicBucketingSampler` and never touches its private state: the plan decides
which cuts reach it, and a position is found again by drawing and dropping batches, which costs
what lhotse's own restore costs and does not depend on what workers have prefetched.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import DynamicBucketingSampler
from lhotse.dataset.sampling.base import CutSampler

from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import KeptCuts, full_cuts
from asrprune.data_pruning.monolingual import Turns, monolingual_batches
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.plan import PRUNED, Plan, check_plan, make_plan
from asrprune.data_pruning.ranks import check_equal, gather_from_ranks, sum_over_ranks
from asrprune.data_pruning.scores import KINDS, ScoreTable
from asrprune.errors import UserError
from asrprune.randomness import key_to_seed

log = logging.getLogger(__name__)

Values = Sequence[float] | np.ndarray | torch.Tensor


class PruningSampler(CutSampler):
    """Batches of the cuts that train in this epoch.

    A training loop calls `set_epoch` at the start of each epoch (on all ranks: it merges what they
    gathered and plans the next cycle), `update` after each step, and `state_dict` and
    `load_state_dict` around a checkpoint (all of them on all ranks).
    """

    def __init__(
        self,
        cuts: CutSet,
        index: CutIndex,
        options: DataPruningOptions,
        *,
        epochs: int,
        duration_bins: list[float],
        max_duration: float | None = None,
        max_cuts: int | None = None,
        buffer_size: int = 20000,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        first_epoch: int = 0,
        turns: Turns | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        """
        :param cuts: the training cuts, in memory or lazy.
        :param index: of these cuts, in their order.
        :param epochs: how many the whole training has; a longer one may set it anew.
        :param duration_bins: seconds that part the buckets, of the full set (lhotse would estimate
            them anew, and badly, from the first cuts that are kept).
        :param max_duration: seconds of a batch, padding included; of what is left after time
            dropping, where `drop_time` was called.
        :param first_epoch: what `set_epoch` gets first: 0 in icefall.
        :param turns: of languages, which have batches of their own then; None: languages are mixed.
        :param rank: and ``world_size``: as lhotse finds them, if not given.
        :raises UserError: options that do not fit each other or the cuts.
        """
        super().__init__(
            shuffle=shuffle, drop_last=drop_last, world_size=world_size, rank=rank, seed=seed
        )
        check_plan(index, options)
        if turns:
            turns.check()
        self.turns = turns
        self.index = index
        self.options = options
        self.epochs = epochs
        self.epoch = self.first_epoch = first_epoch
        self.scores = ScoreTable(index.num_utterances, options.ema, options.detrend)
        self.history = History(len(index))
        self.batches = 0  # consumed in this epoch, as `update` counts them
        self._follow(self._make_plan(0))
        self._kept = KeptCuts(cuts, len(index))
        self._seconds_left: Callable[[], np.ndarray] | None = None
        self._share_left = 1.0
        self._limits = {
            "max_duration": max_duration,
            "max_cuts": max_cuts,
            "buffer_size": buffer_size,
        }
        self._duration_bins = duration_bins
        self._skip: int | None = 0  # batches to pass over; None: the caller does, and counts
        self._inner: Iterator[CutSet] | None = None

    @property
    def cycles(self) -> int:
        """How many the whole training has."""
        return -(-self.epochs // self.options.cycle)

    @property
    def pruned(self) -> bool:
        """Whether the present cycle is one in which something may be dropped."""
        return self.plan.phase == PRUNED

    def drop_time(self, seconds_left: Callable[[], np.ndarray], share: float) -> None:
        """Fill batches by the seconds that time dropping leaves of a cut, in pruned cycles.

        Args:
            seconds_left: returns the seconds that are left of each cut in the present epoch, (N,)
                float32, by line of the index. Called once at the start of each drawing of an epoch
                of a pruned cycle, after `set_epoch`.
            share: how much is left in the mean, by which the buckets are scaled.
        """
        self._seconds_left, self._share_left = seconds_left, share

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; into a new cycle, merge the scores of all ranks and plan it. Collective.

        :raises UserError: scores that the policy needs are unknown; the ranks' plans differ.
        """
        if epoch != self.epoch:
            self.epoch, self.batches, self._skip = epoch, 0, 0
        cycle = max(0, epoch - self.first_epoch) // self.options.cycle
        if cycle != self.plan.cycle:
            self._start_cycle(cycle)
        if not self._agreed:  # a plan that was made at the start or restored may be another, too
            self._check_ranks()
            self._agreed = True

    def end_cycle(self) -> None:
        """Merge what all ranks gathered. Collective; `set_epoch` does it where another follows."""
        self.scores.merge(sum_over_ranks(self.scores.pending(), self.world_size))
        self.history.advance(self.plan.keep, self.plan.freeze)

    def update(
        self,
        cut_ids: Sequence[str],
        losses: Values,
        num_tokens: Values,
        num_frames: Values | None = None,
        el2n: Values | None = None,
        kind: int = 0,
    ) -> None:
        """Feed back what training on one batch of this sampler saw, of all its B cuts.

        To be called once a batch, which is also how the place in the epoch is counted.

        :param losses: (B,) the loss of each cut, summed over its tokens.
        :param num_tokens: (B,) tokens of the transcripts.
        :param num_frames: (B,) encoder frames; for ``score=loss_per_frame``.
        :param el2n: (B,) for ``score=el2n``.
        :param kind: of the batch, 1 to 4095, where sizes of a model or languages take turns: what
            makes all scores of a kind higher is left out of them (with ``detrend=true`` alone).
        :raises UserError: not a number for each cut, or not what the score needs; an unknown cut or
            kind.
        """
        losses, num_tokens = _array(losses), _array(num_tokens)
        match self.options.score:
            case "loss":
                values = losses / (num_tokens + 1)
            case "loss_sum":
                values = losses
            case "loss_per_frame":
                values = losses / np.maximum(_needed(num_frames, "num_frames", "loss_per_frame"), 1)
            case _:
                values = _needed(el2n, "el2n", "el2n")
        if values.shape != (len(cut_ids),):
            raise UserError(
                f"update(...) got {len(cut_ids)} cuts and losses of shape {values.shape}: it needs "
                'the loss of each cut (reduction="none")'
            )
        if not 0 <= kind < KINDS:
            raise UserError(f"update(..., kind={kind}): must be 0 to {KINDS - 1}")
        utterances = self.index.utterances_of(cut_ids)
        self.scores.add(utterances, values, kind)
        self.batches += 1

    def weights_of(self, cut_ids: Sequence[str]) -> np.ndarray | None:
        """Factors (B,) float32 of the cuts' losses, before they are summed; None: all 1."""
        if self.plan.weights is None:
            return None
        return self.plan.weights[self.index.cuts_of(cut_ids)]

    def language_of(self, cut_id: str) -> int:
        """The number of a cut's language among those of the index."""
        [line] = self.index.cuts_of([cut_id])
        return int(self.index.groups["language"][0][line])

    def __iter__(self) -> "PruningSampler":
        if torch.utils.data.get_worker_info() is not None:
            raise UserError(
                "a PruningSampler in a loader's worker (IterableDatasetWrapper) would not "
                "learn what the next cycle keeps: give the loader a map-style dataset, as "
                "DataLoader(dataset, sampler=sampler, batch_size=None)"
            )
        shorter = self.pruned and self._seconds_left is not None
        self._kept.seconds_left = self._seconds_left() if shorter else None
        bins = [edge * (self._share_left if shorter else 1.0) for edge in self._duration_bins]
        if self.turns:
            self._inner = self._by_language(bins)
        else:
            keep = None if self.plan.keep.all() else self.plan.keep
            ranks = {"rank": self.rank, "world_size": self.world_size}
            self._inner = self._bucketed(self._kept.part(keep), bins, self.seed, **ranks)
        if self._skip is not None:
            self.batches = self._skip
        return self

    def _bucketed(
        self, cuts: KeptCuts, bins: list[float], seed: int, rank: int, world_size: int
    ) -> Iterator[CutSet]:
        """Batches of cuts of like durations, in the order of the epoch."""
        sampler = DynamicBucketingSampler(
            CutSet(cuts),
            **self._limits,
            num_buckets=len(bins) + 1,
            duration_bins=bins,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        sampler.set_epoch(self.epoch)
        return iter(sampler)

    def _by_language(self, bins: list[float]) -> Iterator[CutSet]:
        codes, _ = self.index.groups["language"]

        def draw(language: int, number: int) -> Iterator[CutSet]:
            suffix = f"_pass{number}" if number else ""  # the same cut, with draws of its own
            cuts = self._kept.part(self.plan.keep & (codes == language), suffix)
            seed = key_to_seed("pass", self.seed, language, number) % 2**31
            return self._bucketed(cuts, bins, seed, rank=0, world_size=1)

        seconds = float(self.index.duration[self.plan.keep].sum(dtype=np.float64))
        return monolingual_batches(
            self.turns, self.epoch, seconds, draw, self.rank, self.world_size
        )

    def __next__(self) -> CutSet:
        if self._inner is None:
            iter(self)
        # not in __iter__, which a DataLoader with workers calls twice
        skip, self._skip = self._skip, 0
        for _ in range(skip or 0):
            next(self._inner)
        return full_cuts(next(self._inner))

    def state_dict(self) -> dict[str, Any]:
        """Everything; the same on all ranks. Collective.

        The position is the number of batches that `update` was told of.
        """
        weights = self.plan.weights
        return {
            "digest": self.index.digest,
            "epoch": self.epoch,
            "batches": self.batches,
            "batching": self._batching(),
            # the running mean within a cycle is each rank's own, and is among what is pending
            "scores": {**self.scores.state_dict(), "trend": []},
            "history": self.history.state_dict(),
            "pending": gather_from_ranks(self.scores.pending(), self.world_size),
            "plan": {
                **{name: getattr(self.plan, name) for name in ("cycle", "phase", "freeze")},
                "keep": torch.from_numpy(np.packbits(self.plan.keep)),
                "weights": None if weights is None else torch.from_numpy(weights).clone(),
                "report": dict(self.plan.report),
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, which is left as it is.

        With another number of ranks, or other limits of a batch, the scores and the plan stay, and
        the epoch starts again.

        :raises UserError: it belongs to other cuts.
        """
        self.index.check_digest(state["digest"])
        self.scores.load_state_dict(state["scores"])
        self.history.load_state_dict(state["history"])
        plan = dict(state["plan"])
        keep = np.unpackbits(plan.pop("keep").numpy(), count=len(self.index)).view(bool)
        weights = plan.pop("weights")
        weights = None if weights is None else weights.numpy().copy()
        plan["report"] = dict(plan["report"])
        self._follow(Plan(keep=keep, weights=weights, **plan))
        self.epoch, self.batches = state["epoch"], state["batches"]
        pending, batching = state["pending"], self._batching()
        changed = [
            f"{name} ({before} -> {batching[name]})"
            for name, before in state["batching"].items()
            if before != batching[name]
        ]
        if changed:
            log.warning(
                "%s changed: scores and keep-set are kept, the place in epoch %d is lost: it "
                "starts again, and the cuts of %d batches are seen twice",
                ", ".join(changed),
                self.epoch,
                self.batches * len(pending),
            )
            self.batches = 0
        if len(pending) != self.world_size:
            pending = _shared_out(pending, self.world_size)
        self._skip = self.batches
        self.scores.load_pending(pending[self.rank])

    def allow_iter_to_reset_state(self) -> None:
        """Forget the place in the epoch that was restored: the caller skips batches by itself."""
        super().allow_iter_to_reset_state()
        self._skip = None

    def filter(self, predicate: Callable[[Cut], bool]) -> "PruningSampler":
        """Refused: the plan would not know of it.

        :raises UserError: always.
        """
        raise UserError("PruningSampler.filter: make the index and the sampler of filtered cuts")

    def map(self, fn: Callable[[CutSet], CutSet]) -> "PruningSampler":
        """Refused: batches are changed in the dataset, after what is drawn has been counted.

        :raises UserError: always.
        """
        raise UserError("PruningSampler.map: change the batches in the dataset")

    @property
    def remaining_duration(self) -> float | None:
        """Not known before the batches are drawn."""
        return None

    @property
    def remaining_cuts(self) -> int | None:
        """Not known before the batches are drawn."""
        return None

    @property
    def num_cuts(self) -> int:
        """How many are kept in this cycle, over all ranks."""
        return int(np.count_nonzero(self.plan.keep))

    def _start_cycle(self, cycle: int) -> None:
        """Merge what the ranks gathered in the cycle that has ended, and plan this one."""
        if cycle > self.plan.cycle:
            self.end_cycle()
        before = self.plan.keep
        self._follow(self._make_plan(cycle))
        self.plan.report["turnover"] = _turnover(before, self.plan.keep)
        self.plan.report["never_visited"] = float(np.mean(self.history.visits == 0))

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._agreed = False

    def _check_ranks(self) -> None:
        """:raises UserError: on every rank, where one would draw other batches than the first."""
        cycle, world = self.plan.cycle, self.world_size
        check_equal("the training manifest", self.index.digest, world, cycle=cycle)
        place = f"{self.plan.digest}{self.epoch:016x}{self.batches:016x}"
        check_equal("the keep-set, or the place in it,", place, world, cycle=cycle)

    def _batching(self) -> dict[str, Any]:
        """What decides, besides the plan, which cuts are in which batch."""
        return {
            "world_size": self.world_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            **self._limits,
            "duration_bins": list(self._duration_bins),
            **({"accumulate": self.turns.accumulate} if self.turns else {}),
        }

    def _make_plan(self, cycle: int) -> Plan:
        return make_plan(
            self.index, self.scores, self.options, self.seed, cycle, self.cycles, self.history
        )


def _turnover(before: np.ndarray, after: np.ndarray) -> float:
    """The share of a keep-set that was not in the one before."""
    return float(np.count_nonzero(after & ~before) / np.count_nonzero(after))


def _shared_out(pending: list[dict[str, Any]], world_size: int) -> list[dict[str, Any]]:
    """What was gathered on some ranks, given to the first of others; each has the mean trend."""
    total = {name: sum(part[name] for part in pending) for name in pending[0]}
    trend = total["trend"] / len(pending)
    nothing = {name: torch.zeros_like(values) for name, values in total.items()}
    first = {**total, "trend": trend}
    return [first, *({**nothing, "trend": trend} for _ in range(world_size - 1))]


def _array(values: Values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def _needed(values: Values | None, name: str, score: str) -> np.ndarray:
    if values is None:
        raise UserError(f"data_pruning.score={score} needs update(..., {name}=...)")
    return _array(values)
