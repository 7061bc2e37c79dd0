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
from lhotse.dataset.sampling.base import CutSampler

from asrprune.data_pruning.batch_cuts import Values, batch_scores, find_in_batch
from asrprune.data_pruning.drawing import Drawing
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.kept import full_cuts
from asrprune.data_pruning.monolingual import LanguageSchedule
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.order import OrderOfBatches
from asrprune.data_pruning.phases import PRUNED
from asrprune.data_pruning.plan import Plan, check_plan, make_plan
from asrprune.data_pruning.ranks import check_equal, gather_from_ranks, sum_over_ranks
from asrprune.data_pruning.sampler_state import (
    changed_batching,
    restore_pending,
    restored_plan,
    saved_pending,
    saved_plan,
)
from asrprune.data_pruning.scores import LOSS_CLASSES, ScoreTable
from asrprune.errors import UserError

log = logging.getLogger(__name__)


class PruningSampler(CutSampler):
    """Batches of the cuts that train in this epoch.

    A training loop calls `set_epoch` at the start of each epoch (on all ranks: it merges what they
    gathered and plans the next cycle), `update` after each step, and `state_dict` and
    `load_state_dict` around a checkpoint. `state_dict` is of one rank and may be called on one
    alone; `gathered_state_dict` is called on all ranks and makes a resume exact on all of them.
    """

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
            index: of these cuts, in any order.
            options: of data pruning.
            epochs: how many the whole training has; a longer one may set it anew.
            duration_bins: seconds that part the buckets, of the full set (lhotse would estimate
                them anew, and badly, from the first cuts that are kept). None: ``num_buckets`` of
                equal total duration, from the index.
            num_buckets: how many, where no ``duration_bins`` are given.
            max_duration: seconds of a batch, padding included; of what is left after time
                dropping, where `drop_time` was called.
            first_epoch: what `set_epoch` gets first; 1 where epochs are counted from 1.
            turns: of languages, which have batches of their own then; None: languages are mixed.
            rank: and ``world_size``: as lhotse finds them, if not given.

        Raises:
            UserError: options that do not fit each other or the cuts; cuts other than the index's.
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
        self.left_out = 0  # cuts that `update` was told of and that the index does not know
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
        # batches that each iteration passes over, until `update` is called; None: the caller does
        self._restored: int | None = 0
        self._skip = 0  # of them, those that the present iteration is still to pass over
        self._drawn = False  # whether the present cycle has been drawn from
        self._order = OrderOfBatches()
        self._inner: Iterator[CutSet] | None = None

    @property
    def cycles(self) -> int:
        """How many the whole training has."""
        return -(-self.epochs // self.options.cycle)

    @property
    def pruned(self) -> bool:
        """Whether the present cycle is one in which something may be dropped."""
        return self.plan.phase == PRUNED

    @property
    def drops_time(self) -> bool:
        """Whether time is dropped in the present cycle, if the options drop any."""
        return self.plan.drops_time

    @property
    def remaining_epochs(self) -> range:
        """The epochs that are still to be trained, the present one first."""
        return range(self.epoch, self.first_epoch + self.epochs)

    def drop_time(self, seconds_left: Callable[[], np.ndarray], share: float) -> None:
        """Fill batches by the seconds that time dropping leaves of a cut, where `drops_time`.

        Args:
            seconds_left: called when such an epoch is drawn, after `set_epoch`; returns (N,)
                float32 seconds that are left of each cut, by line of the index.
            share: how much is left in the mean, by which the buckets are scaled.
        """
        self._drawing.drop_time(seconds_left, share)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; into a new cycle, merge the scores of all ranks and plan it. Collective.

        Raises:
            UserError: all scores that the policy needs are unknown, after cycles that gathered
                none; the ranks' plans differ.
        """
        if epoch != self.epoch:
            self.epoch = epoch
            self.restart_epoch()
        cycle = max(0, epoch - self.first_epoch) // self.options.cycle
        if cycle != self.plan.cycle:
            self._start_cycle(cycle)
        if not self._agreed:  # a plan that was made at the start or restored may be another, too
            self._check_ranks()
            self._agreed = True

    def restart_epoch(self) -> None:
        """Forget the position in the epoch: the next iteration begins with the first batch."""
        self.batches, self._restored = 0, 0
        self._order.begin()

    def end_cycle(self) -> None:
        """Merge what all ranks gathered. Collective; `set_epoch` does it where another follows."""
        self.scores.merge(sum_over_ranks(self.scores.pending(), self.world_size))
        if self._drawn:  # else the training began later, and none of these cuts was seen
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
        """Feed back what training on one batch of this sampler saw, of all its B cuts.

        To be called once for each batch that is trained on, after its backward pass: this is also
        how the position in the epoch is counted. Not to be called in validation or in a scan of
        memory. Cuts that are not in the index are left out, and a warning says so once.

        Args:
            cuts: (B,) the cuts, or their ids. A cut that was concatenated or mixed reaches the
                scores of its tracks, if the cut itself is given.
            losses: (B,) the loss of each cut, summed over its tokens.
            num_tokens: (B,) tokens of the transcripts.
            num_frames: (B,) encoder frames; for ``score=loss_per_frame``.
            el2n: (B,) for ``score=el2n``.
            loss_class: class of the batch, 1 to 4095, where sizes of a model or languages take
                turns. With ``detrend=true``, what makes all losses of a class higher is left out of
                the scores.

        Raises:
            UserError: not a number for each cut, or not what the score needs; an unknown class.
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
        self.batches += 1
        self._restored = None if self._restored is None else 0
        self._order.consume()

    def weights_of(self, cuts: Sequence[str | Cut]) -> np.ndarray | None:
        """Return factors (B,) float32 of the cuts' losses, before they are summed; None: all 1.

        A concatenated cut has the mean of its tracks' weights, an unknown one 1.
        """
        if self.plan.weights is None:
            return None
        found = find_in_batch(cuts, self.index.find_cuts)
        weights = np.bincount(found.row, self.plan.weights[found.line] * found.share, len(cuts))
        weights[np.bincount(found.row, minlength=len(cuts)) == 0] = 1
        return weights.astype(np.float32)

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
        self._inner = self._drawing.batches(self.plan, self.epoch)
        self._skip = self._restored or 0
        if self._restored is not None:
            self.batches = self._restored
        self._order.begin_iteration()
        return self

    def __next__(self) -> CutSet:
        if self._inner is None:
            iter(self)
        # not in __iter__, which a DataLoader with workers calls twice
        skip, self._skip = self._skip, 0
        for _ in range(skip):
            self._order.draw(next(self._inner))
        batch = next(self._inner)
        self._order.draw(batch)
        self._drawn = True
        return full_cuts(batch)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank. Not collective: one rank alone may call it.

        The position is the number of batches that `update` was told of. Of what was gathered in
        the present cycle, the state holds this rank's part. Ranks that go on from another rank's
        state lack theirs: their cuts keep the scores of the cycle before. For an exact resume on
        several ranks save `gathered_state_dict`.
        """
        return self._state([self.rank], self.scores.pending(), [self._order.state()])

    def gathered_state_dict(self) -> dict[str, Any]:
        """Return the state of all ranks, equal on all of them. Collective.

        The state is as large as that of one rank: sums are added up, not kept side by side.
        """
        summed = sum_over_ranks(self.scores.pending(), self.world_size)
        small = {"trend": self.scores.trend, "order": torch.tensor([self._order.state()])}
        parts = gather_from_ranks(small, self.world_size)
        summed["trend"] = torch.stack([part["trend"] for part in parts])
        orders = [int(part["order"]) for part in parts]
        return self._state(list(range(self.world_size)), summed, orders)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` or `gathered_state_dict`, which is left as it is.

        With another number of ranks, or other limits of a batch, the scores and the plan stay, and
        the epoch starts again.

        Raises:
            UserError: it belongs to other cuts.
        """
        self.index.check_digest(state["digest"])
        self.scores.load_state_dict(state["scores"])
        self.history.load_state_dict(state["history"])
        self._follow(restored_plan(state["plan"], len(self.index)))
        self.epoch, self.batches = state["epoch"], state["batches"]
        self._drawn = state["drawn"]
        changed = changed_batching(state["batching"], self._drawing.settings())
        if changed:
            log.warning(
                "%s changed: scores and keep-set are kept, the place in epoch %d is lost: it "
                "starts again, and the cuts of %d batches are seen twice",
                ", ".join(changed),
                self.epoch,
                self.batches * state["batching"]["world_size"],
            )
            self.batches = 0
        self._restored = self.batches
        self._order.begin()
        if self.batches and self.rank in state["ranks"]:
            self._order.expect(self.batches, state["order"][state["ranks"].index(self.rank)])
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
            "ranks": ranks,  # whose visits, trends and orders follow
            "order": order,
            "pending": saved_pending(pending),
            "scores": self.scores.state_dict(),
            "history": self.history.state_dict(),
            "plan": saved_plan(self.plan),
        }

    def allow_iter_to_reset_state(self) -> None:
        """Forget the place in the epoch that was restored: the caller skips batches by itself."""
        super().allow_iter_to_reset_state()
        self._restored = None

    def filter(self, predicate: Callable[[Cut], bool]) -> "PruningSampler":
        """Refused: the plan would not know of it.

        Raises:
            UserError: always.
        """
        raise UserError("PruningSampler.filter: make the index and the sampler of filtered cuts")

    def map(self, fn: Callable[[CutSet], CutSet]) -> "PruningSampler":
        """Refused: batches are changed in the dataset, after what is drawn has been counted.

        Raises:
            UserError: always.
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
        for note in self.plan.report["notes"]:
            log.warning("cycle %d: %s", cycle, note)

    def _leave_out(self, unknown: list[str]) -> None:
        """Count cuts that the index does not know, and say so the first time."""
        if unknown and not self.left_out:
            log.warning(
                "update(...) was given cut %r, which is not in the training manifest. The loss is "
                "left out, as of all other cuts like this one. Call update for training batches "
                "alone, with the cuts (or ids) that the sampler gave.",
                unknown[0],
            )
        self.left_out += len(unknown)

    def _follow(self, plan: Plan) -> None:
        self.plan = plan
        self._agreed = False

    def _check_ranks(self) -> None:
        """Check that all ranks draw the same batches. Collective.

        Raises:
            UserError: on every rank, the manifest, the keep-set or the position in the epoch of a
                rank differs from that of rank 0.
        """
        cycle, world = self.plan.cycle, self.world_size
        check_equal("the training manifest", self.index.digest, world, cycle=cycle)
        place = f"{self.plan.digest}{self.epoch:016x}{self.batches:016x}"
        check_equal("the keep-set, or the place in it,", place, world, cycle=cycle)

    def _make_plan(self, cycle: int) -> Plan:
        return make_plan(
            self.index, self.scores, self.options, self.seed, cycle, self.cycles, self.history
        )


def _turnover(before: np.ndarray, after: np.ndarray) -> float:
    """The share of a keep-set that was not in the one before."""
    return float(np.count_nonzero(after & ~before) / np.count_nonzero(after))
