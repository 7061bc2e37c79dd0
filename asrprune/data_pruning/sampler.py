"""Make batches of the cuts that the plan of the current cycle keeps, as a lhotse sampler.

The sampler wraps a stock `DynamicBucketingSampler` and never touches its private state. The plan
decides which cuts reach the stock sampler. A position is restored by drawing batches and throwing
them away. This costs as much as lhotse's own restore, and does not depend on what workers have
prefetched.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.sampling.base import CutSampler

from asrprune.base.collectives import check_equal, gather_from_ranks, sum_over_ranks
from asrprune.base.errors import UserError
from asrprune.data_pruning.batch_cuts import Values, batch_scores, find_in_batch
from asrprune.data_pruning.drawing import Drawing
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import full_cuts
from asrprune.data_pruning.monolingual import LanguageSchedule
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.order import OrderOfBatches
from asrprune.data_pruning.phases import PRUNED, without_effect
from asrprune.data_pruning.plan import Plan, check_plan, make_plan
from asrprune.data_pruning.sampler_state import (
    lost_position,
    restore_pending,
    restored_plan,
    saved_pending,
    saved_plan,
)
from asrprune.data_pruning.scores import LOSS_CLASSES, ScoreTable

log = logging.getLogger(__name__)


class PruningSampler(CutSampler):
    """Makes batches of the cuts that train in the current epoch.

    A training loop calls these methods:

    - `set_epoch` at the start of each epoch, on all ranks. Before a new cycle it merges the scores
      of all ranks and plans the cycle.
    - `update` after the backward pass of each batch.
    - `state_dict` to write a checkpoint, and `load_state_dict` to read it. `state_dict` returns the
      state of one rank, and needs no other rank. `gathered_state_dict` must be called on all ranks,
      and makes a resume exact on all of them.
    """

    _agreed: bool  # whether the ranks are known to draw the same batches of the current plan

    def __init__(
        self,
        cuts: CutSet,
        index: CutIndex,
        options: DataPruningOptions,
        *,
        epochs: int,
        duration_bins: list[float] | None = None,
        num_buckets: int = 30,
        max_duration: float | None = None,
        max_cuts: int | None = None,
        buffer_size: int = 20000,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        first_epoch: int = 0,
        turns: LanguageSchedule | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ):
        """Bind the cuts to the options of data pruning and of batches.

        Args:
            cuts: the training cuts, in memory or lazy.
            index: of these cuts; for a lazy manifest in the order of its lines, else in any order.
            options: of data pruning.
            epochs: number of epochs of the whole training. To make the training longer, set the
                attribute ``epochs``.
            duration_bins: edges of the buckets in seconds, from the full set of cuts. (Lhotse would
                estimate them badly, from the first cuts that are kept.) None: ``num_buckets``
                buckets of equal total duration, from the index.
            num_buckets: number of buckets if ``duration_bins`` is not given.
            max_duration: maximum seconds of a batch, padding included. If `drop_time` was called,
                these are seconds after time dropping.
            max_cuts: maximum number of cuts of a batch.
            buffer_size: as in lhotse's `DynamicBucketingSampler`.
            shuffle: as in lhotse's `DynamicBucketingSampler`.
            drop_last: as in lhotse's `DynamicBucketingSampler`.
            seed: seed of all draws.
            first_epoch: the first number that `set_epoch` gets; 1 if epochs are counted from 1.
            turns: schedule of batches of one language each; None: languages are mixed.
            rank: number of this rank; by default as lhotse finds it.
            world_size: number of ranks; by default as lhotse finds it.

        Raises:
            UserError: the options do not fit each other or the cuts; or the cuts are not those of
                the index.
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
        self.batches = 0  # batches trained on in this epoch, as `update` counts them
        self.left_out = 0  # cuts given to `update` that the index does not know
        for sentence in without_effect(options, epochs):
            log.warning("%s", sentence)
        self._follow(self._make_plan(0))
        if duration_bins is None:
            duration_bins = index.duration_bins(num_buckets)
        self._drawing = Drawing(
            cuts,
            index,
            turns,
            duration_bins=duration_bins,
            limits={  # plain numbers, for checkpoints
                "max_duration": None if max_duration is None else float(max_duration),
                "max_cuts": None if max_cuts is None else int(max_cuts),
                "buffer_size": int(buffer_size),
            },
            shuffle=shuffle,
            drop_last=drop_last,
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
        )
        # batches that each iteration skips until `update` is called; None: the caller skips them
        self._restored: int | None = 0
        self._skip = 0  # batches that the current iteration still has to skip
        self._drawn = False  # whether a batch of the current cycle has been drawn
        self._begun = False  # whether the training has begun; a scan of memory may come before
        self._lost = ""  # a warning for the next iteration: what a changed setting costs
        self._order = OrderOfBatches()
        self._inner: Iterator[CutSet] | None = None

    @property
    def cycles(self) -> int:
        """The number of cycles of the whole training."""
        return -(-self.epochs // self.options.cycle)

    @property
    def pruned(self) -> bool:
        """Whether cuts or time may be dropped in the current cycle."""
        return self.plan.phase == PRUNED

    @property
    def drops_time(self) -> bool:
        """Whether time is dropped in the current cycle, if the options drop time."""
        return self.plan.drops_time

    @property
    def remaining_epochs(self) -> range:
        """The epochs that are still to be trained, the current epoch first."""
        return range(self.epoch, self.first_epoch + self.epochs)

    def drop_time(self, seconds_left: Callable[[], np.ndarray], share: float) -> None:
        """Fill batches by the seconds that time dropping leaves of a cut, in cycles that drop time.

        Args:
            seconds_left: function that returns the seconds left of each cut, (N,) float32 by line
                of the index. It is called when an epoch that drops time is drawn, after
                `set_epoch`.
            share: mean share that is left, by which the buckets are scaled.
        """
        self._drawing.drop_time(seconds_left, share)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch. Collective.

        If the epoch begins a new cycle, the scores of all ranks are merged and the cycle is
        planned.

        Args:
            epoch: number of the epoch, counted from ``first_epoch``.

        Raises:
            UserError: the policy needs scores, and the cycles so far gathered none; the plan is not
                possible (`make_plan`), or has no cut of a language that has batches of its own; or
                manifests, plans or positions of the ranks differ.
        """
        if epoch != self.epoch:
            self.epoch = epoch
            self.restart_epoch()
        self._begun = True
        cycle = max(0, epoch - self.first_epoch) // self.options.cycle
        if cycle != self.plan.cycle:
            self._start_cycle(cycle)
        if not self._agreed:  # also a plan that was made at the start or restored may differ
            self._check_ranks()
            self._agreed = True

    def restart_epoch(self) -> None:
        """Forget the position in the epoch: the next iteration begins with the first batch."""
        self.batches, self._restored, self._lost = 0, 0, ""
        self._order.begin()

    def end_cycle(self) -> None:
        """Merge the scores that all ranks gathered in the cycle. Collective.

        `set_epoch` does this when another cycle follows.
        """
        self.scores.merge(sum_over_ranks(self.scores.pending(), self.world_size))
        if self._drawn:  # else the training began later, and no cut of this cycle was seen
            self.history.advance(self.plan.keep, self.plan.freeze)
        self._drawn = False

    def update(
        self,
        cuts: Sequence[str | Cut],
        losses: Values,
        num_tokens: Values,
        num_frames: Values | None = None,
        el2n: Values | None = None,
        loss_class: int = 0,
    ) -> None:
        """Feed back the losses of all B cuts of a batch that was trained on.

        Call this once for each batch of this sampler, after the backward pass: the calls also count
        the position in the epoch. Do not call it in validation, or in a scan for batches that do
        not fit in memory. Cuts that are not in the index are left out, and a warning says so once.

        Args:
            cuts: (B,) the cuts, or their ids. The loss of a concatenated or mixed cut reaches the
                scores of its tracks if the cut is given, and not only its id.
            losses: (B,) the loss of each cut, summed over its tokens.
            num_tokens: (B,) tokens of the transcripts.
            num_frames: (B,) encoder frames, for ``score=loss_per_frame``.
            el2n: (B,) EL2N scores, for ``score=el2n``.
            loss_class: class of the batch, 1 to 4095, if batches of several model sizes or
                languages alternate. With ``detrend=true`` the losses of a class are divided by the
                level of the class. A class with higher losses then does not give higher scores.
                0: no division.

        Raises:
            UserError: the losses are not one number for each cut; numbers that the score needs are
                missing; or the class is out of its range.
        """
        if not 0 <= loss_class < LOSS_CLASSES:
            raise UserError(
                f"update(..., loss_class={loss_class}): must be 0 to {LOSS_CLASSES - 1}"
            )
        given = {
            "losses": losses, "num_tokens": num_tokens, "num_frames": num_frames, "el2n": el2n,
        }  # fmt: skip
        found = find_in_batch(cuts, self.index.find_utterances)
        scores = batch_scores(self.options.score, found, len(cuts), given)
        self._leave_out(found.unknown)
        if not len(found.row):
            return  # a batch of other cuts, such as those of a dev set
        self.scores.add(found.line, scores, loss_class)
        self._drawn = self._begun = True
        self.batches += 1
        self._restored = None if self._restored is None else 0
        self._order.consume()

    def weights_of(self, cuts: Sequence[str | Cut]) -> np.ndarray | None:
        """Return the weights (B,) float32 of the cuts' losses; None: all weights are 1.

        Multiply the losses by the weights before the sum over the cuts. The weight of a
        concatenated cut is the mean of its tracks' weights. An unknown cut has the weight 1.
        """
        if self.plan.weights is None:
            return None
        found = find_in_batch(cuts, self.index.find_cuts)
        weights = np.bincount(found.row, self.plan.weights[found.line] * found.share, len(cuts))
        weights[np.bincount(found.row, minlength=len(cuts)) == 0] = 1
        return weights.astype(np.float32)

    def __iter__(self) -> "PruningSampler":
        self._begin()
        return self

    def _begin(self) -> Iterator[CutSet]:
        """Begin an iteration; return its batches, with those that are to be skipped."""
        if torch.utils.data.get_worker_info() is not None:
            raise UserError(
                "a PruningSampler in a loader's worker (IterableDatasetWrapper) would not "
                "learn what the next cycle keeps. Give the loader a map-style dataset: "
                "DataLoader(dataset, sampler=sampler, batch_size=None)."
            )
        if self._lost:
            log.warning("%s", self._lost)
            self._lost = ""
        inner = self._inner = self._drawing.batches(self.plan, self.epoch)
        self._skip = self._restored or 0
        if self._restored is not None:
            self.batches = self._restored
        self._order.begin_iteration()
        return inner

    def __next__(self) -> CutSet:
        inner = self._begin() if self._inner is None else self._inner
        # skipped here and not in __iter__, because a DataLoader with workers calls __iter__ twice
        skip, self._skip = self._skip, 0
        for _ in range(skip):
            self._order.draw(next(inner))
        batch = next(inner)
        self._order.draw(batch)
        self._drawn |= self._begun
        return full_cuts(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank. Not collective: the other ranks need not call it.

        The position is the number of batches that were given to `update`. Of the scores gathered
        in the current cycle, the state holds those of this rank. After a resume the scores of other
        ranks are missing: their cuts keep the scores of the cycle before. For an exact resume on
        several ranks, save the result of `gathered_state_dict`.
        """
        return self._state([self.rank], self.scores.pending(), [self._order.state()])

    def gathered_state_dict(self) -> dict[str, Any]:
        """Return the state of all ranks, which is equal on all of them. Collective.

        The state is about as large as that of one rank, because sums are added up over the ranks.
        """
        summed = sum_over_ranks(self.scores.pending(), self.world_size)
        small = {"trend": self.scores.trend, "order": torch.tensor([self._order.state()])}
        parts = gather_from_ranks(small, self.world_size)
        summed["trend"] = torch.stack([part["trend"] for part in parts])
        orders = [int(part["order"]) for part in parts]
        return self._state(list(range(self.world_size)), summed, orders)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict` or `gathered_state_dict`.

        If the number of ranks or a setting of the batches has changed, the scores and the plan are
        kept and the epoch starts again.

        Args:
            state: the saved state, which is not changed.

        Raises:
            UserError: the state belongs to other cuts.
        """
        self.index.check_digest(state["digest"])
        self.scores.load_state_dict(state["scores"])
        self.history.load_state_dict(state["history"])
        self._follow(restored_plan(state["plan"], len(self.index)))
        self.epoch, self.batches = state["epoch"], state["batches"]
        self._drawn, self._begun = state["drawn"], True
        self._lost = lost_position(state, self._drawing.settings())
        if self._lost:
            self.batches = 0
        self._restored = self.batches
        self._order.begin()
        if self.batches:
            orders = dict(zip(state["ranks"], state["order"], strict=True))
            self._order.expect(self.batches, orders.get(self.rank))
        restore_pending(self.scores, state, self.rank, self.world_size)

    def _state(
        self, ranks: list[int], pending: dict[str, torch.Tensor], order: list[int]
    ) -> dict[str, Any]:
        return {
            "digest": self.index.digest,
            "epoch": self.epoch,
            "batches": self.batches,
            "batching": self._drawing.settings(),
            "drawn": self._drawn,
            "ranks": ranks,  # the ranks whose visits, trends and orders follow
            "order": order,
            "pending": saved_pending(pending),
            "scores": self.scores.state_dict(),
            "history": self.history.state_dict(),
            "plan": saved_plan(self.plan),
        }

    def allow_iter_to_reset_state(self) -> None:
        """Forget the restored position in the epoch: the caller skips batches by itself."""
        super().allow_iter_to_reset_state()
        self._restored = None

    def filter(self, predicate: Callable[[Cut], bool]) -> "PruningSampler":
        """Refuse to filter the cuts: the plan would not know of the filter.

        Raises:
            UserError: always.
        """
        raise UserError(
            "PruningSampler.filter is not supported. Make the index and the sampler of filtered "
            "cuts."
        )

    def map(self, fn: Callable[[CutSet], CutSet]) -> "PruningSampler":
        """Refuse to change batches: the dataset may change them, after the sampler counted them.

        Raises:
            UserError: always.
        """
        raise UserError("PruningSampler.map is not supported. Change the batches in the dataset.")

    @property
    def remaining_duration(self) -> float | None:
        """None: the remaining seconds are not known before the batches are drawn."""
        return None

    @property
    def remaining_cuts(self) -> int | None:
        """None: the remaining cuts are not known before the batches are drawn."""
        return None

    @property
    def num_cuts(self) -> int:
        """The number of cuts that this cycle keeps, over all ranks."""
        return int(np.count_nonzero(self.plan.keep))

    def _start_cycle(self, cycle: int) -> None:
        """Merge the scores that the ranks gathered in the last cycle, and plan the next cycle."""
        if cycle > self.plan.cycle:
            self.end_cycle()
        self._follow(self._make_plan(cycle))
        for note in self.plan.report["notes"]:
            log.warning("cycle %d: %s", cycle, note)

    def _leave_out(self, unknown: list[str]) -> None:
        """Count cuts that the index does not know, and log a warning the first time."""
        if unknown and not self.left_out:
            log.warning(
                "update(...) was given cut %r, which is not in the training manifest. The losses "
                "of such cuts are left out. Call update for training batches only, with the cuts "
                "(or ids) that the sampler gave.",
                unknown[0],
            )
        self.left_out += len(unknown)

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._agreed = False

    def _check_ranks(self) -> None:
        """Check that all ranks draw the same batches. Collective.

        Raises:
            UserError: on every rank, if the manifest, the keep-set or the position in the epoch of
                a rank differs from that of rank 0.
        """
        cycle, world = self.plan.cycle, self.world_size
        check_equal("the training manifest", self.index.digest, world, cycle=cycle)
        position = f"{self.plan.digest}{self.epoch:016x}{self.batches:016x}"
        check_equal("the keep-set, or the position in the epoch,", position, world, cycle=cycle)

    def _make_plan(self, cycle: int) -> Plan:
        plan = make_plan(
            self.index, self.scores, self.options, self.seed, cycle, self.cycles, self.history
        )
        if self.turns:
            self.turns.check_plan(plan)
        return plan
