"""Plan a cycle: which cuts it keeps, and how much each kept cut weighs.

A plan is a pure function of the index, the scores, the history, the options, the number of cycles
and (seed, cycle). It does not change within the cycle. Cuts that are kept for a group floor or for
their age count towards the budget. If they need more than the budget, they are kept all the same,
and the report says so. With an emergent policy they are kept on top of what its rule keeps.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.base.randomness import key_to_seed
from asrprune.data_pruning.answers import checked_ranking, checked_selection
from asrprune.data_pruning.context import Context, NoScoresYet, Ranking, Selection
from asrprune.data_pruning.floors import (
    Groups,
    below_floor,
    check_floors,
    check_left,
    first_of_groups,
    oldest_of,
    without_cuts,
)
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.data_pruning.phases import PRUNED, anneal_cycles, cycle_phase, drops_time
from asrprune.data_pruning.policies import Policy, load_policy
from asrprune.data_pruning.scores import ScoreTable
from asrprune.data_pruning.selection import select, totals

# The tiers of a plan. The tiers of the policy itself begin at the last of them.
_MUST, _UNKNOWN, _POLICY = range(3)


@dataclass
class Plan:
    """The cuts that a cycle trains on, and their weights.

    ``report`` holds plain values:

    - ``policy``, ``phase``, ``unit``
    - ``asked``: the share to keep
    - ``cuts``, ``seconds``: the shares that are kept
    - ``turnover``: share of the kept cuts that the cycle before did not keep
    - ``never_visited``: share of cuts that no cycle has kept, this cycle included
    - ``forced``: number of cuts kept for their age
    - ``deferred``: number of cuts that are due for their age, and have to wait
    - ``unknown``: number of cuts without a score
    - ``floored``: number of cuts kept for a floor
    - ``lacking``: language or corpus -> groups of which the policy kept no cut, if there are any;
      one cut of each is kept
    - ``notes``: sentences on what could not be met
    """

    cycle: int
    phase: str
    drops_time: bool  # whether time is dropped in this cycle, if the options drop time
    keep: np.ndarray  # (N,) bool
    weights: np.ndarray | None  # (N,) float32, 0 for dropped cuts; None: all 1
    freeze: bool  # whether a static policy chose, so that `History.advance` stores the choice
    report: dict[str, Any]

    @property
    def digest(self) -> str:
        """A hash of the cycle, keep-set and weights, to compare between ranks."""
        digest = hashlib.blake2b(str(self.cycle).encode(), digest_size=16)
        digest.update(np.packbits(self.keep).data)
        if self.weights is not None:
            digest.update(self.weights.astype("<f4", copy=False).data)
        return digest.hexdigest()


def check_plan(index: CutIndex, options: DataPruningOptions) -> None:
    """Check the options at the start of a training, instead of in its first pruned cycle.

    Args:
        index: of the training cuts.
        options: of data pruning.

    Raises:
        UserError: an option is out of its range; options do not go together; the policy or one of
            its options is unknown; or the manifest does not give a grouping that the options name.
    """
    check(options, "data_pruning.")
    policy = load_policy(options.policy, options.policy_options)
    check_floors(index, options.floors)
    if options.stratify_by:
        if policy.emergent:
            raise UserError(
                f"data_pruning.stratify_by={options.stratify_by}: the rule of policy "
                f"{options.policy} is for all cuts together. Leave stratify_by empty, or choose "
                "another policy."
            )
        if options.stratify_by not in index.groups:
            raise UserError(
                f"data_pruning.stratify_by={options.stratify_by}: the training manifest does not "
                f"give the {options.stratify_by} of its cuts. It gives: "
                f"{', '.join(index.groups) or 'no groups'}"
            )
    if ":" not in options.policy and options.keep < 1:  # try the policy's own checks on a few cuts
        groups = {name: (np.zeros(64, np.uint8), ["one"]) for name in [options.stratify_by] if name}
        tiny = CutIndex(np.arange(64, dtype=np.uint64), np.linspace(1, 9, 64), groups=groups)
        scores = ScoreTable(64, detrend=False)
        for turn in (1, 2):
            scores.add(np.arange(64), np.arange(64) * turn + 1.0)
            scores.merge(scores.pending())
        cycle = options.warmup_cycles
        planner = _Planner(tiny, scores, options, policy, 0, cycle, cycle + 1, History(64), {})
        policy.function(planner.context)


def make_plan(
    index: CutIndex,
    scores: ScoreTable,
    options: DataPruningOptions,
    seed: int,
    cycle: int,
    cycles: int,
    history: History,
) -> Plan:
    """Plan a cycle.

    Args:
        index: of the training cuts.
        scores: merged scores, the same on all ranks.
        options: of data pruning.
        seed: seed of all draws.
        cycle: number of the cycle, from 0.
        cycles: number of cycles of the whole training.
        history: the history at the end of the cycle before.

    Returns:
        The plan, the same on all ranks.

    Raises:
        UserError: all scores are unknown after cycles that should have given some; no cut is left;
            or the policy's answer is malformed.
    """
    phase = cycle_phase(options, cycle, cycles)
    policy = load_policy(options.policy, options.policy_options)
    report: dict[str, Any] = {
        "policy": options.policy, "phase": phase, "asked": options.keep, "unit": options.unit,
        "forced": 0, "deferred": 0, "unknown": 0, "floored": 0, "notes": [],
    }  # fmt: skip
    weights, freeze = None, False
    if phase != PRUNED or options.policy == "full" or options.keep == 1:
        keep = np.ones(len(index), bool)
        report["asked"] = 1.0
    elif policy.static and history.frozen is not None:
        keep = history.frozen.copy()
    else:
        planner = _Planner(index, scores, options, policy, seed, cycle, cycles, history, report)
        try:
            keep, weights = planner.plan()
            freeze = policy.static
        except NoScoresYet:
            keep = np.ones(len(index), bool)
            report["asked"] = 1.0
            report["notes"].append(
                f"policy {options.policy} needs scores, and there are none yet. This cycle trains "
                "on everything. To continue a training with its scores, load the sampler's state."
            )
    check_left(keep, cycle)
    if lacking := without_cuts(index, keep):
        first = oldest_of(index, lacking, history.age)
        keep = keep.copy()
        keep[first] = True
        if weights is not None:
            weights = weights.copy()  # a policy may keep its own array
            weights[first] = 1
        report["lacking"] = lacking
        report["notes"].append(
            "one cut is kept of each of "
            + ", ".join(f"{name} {one!r}" for name, names in lacking.items() for one in names)
            + ", of which the policy keeps none. To keep a share of each, set "
            + " and ".join(f"data_pruning.floors.{name}" for name in lacking)
        )
    report["cuts"] = float(np.count_nonzero(keep) / len(keep))
    seconds = totals(index.duration, None, 1, keep)[0] / index.stratum_seconds(1)[0]
    report["seconds"] = float(seconds)
    again = int(np.count_nonzero(keep & (history.age == 0)))
    report["turnover"] = 1 - again / max(int(np.count_nonzero(keep)), 1)
    report["never_visited"] = float(np.count_nonzero((history.visits == 0) & ~keep) / len(keep))
    if options.rescale and weights is None and not keep.all():
        weights = _inverse_share(index, _strata(index, options, policy), keep)
    return Plan(cycle, phase, drops_time(options, cycle, cycles), keep, weights, freeze, report)


class _Planner:
    """Makes the plan of a pruned cycle, in steps that share budgets and costs."""

    def __init__(
        self,
        index: CutIndex,
        scores: ScoreTable,
        options: DataPruningOptions,
        policy: Policy,
        seed: int,
        cycle: int,
        cycles: int,
        history: History,
        report: dict[str, Any],
    ) -> None:
        self.index, self.options, self.policy, self.report = index, options, policy, report
        self.history = history
        self.rng = np.random.default_rng(key_to_seed("data_pruning", "plan", seed, cycle))
        if options.unit == "seconds":
            self.cost = index.duration
        else:
            self.cost = np.broadcast_to(np.float32(1), len(index))
        self.strata, count = _strata(index, options, policy)
        if options.unit == "seconds":
            self.totals = index.stratum_seconds(*_classes(options, policy))
        else:
            self.totals = totals(self.cost, self.strata, count)
        self.forced = self._old_ones()
        pruned_cycle = cycle - options.warmup_cycles
        last = cycles - anneal_cycles(options, cycles) - options.warmup_cycles - 1
        self.context = Context(
            index=index,
            scores=scores,
            policy=options.policy,
            keep=options.keep,
            smooth=options.smooth,
            cycle=cycle,
            pruned_cycle=pruned_cycle,
            progress=pruned_cycle / last if last > 0 else 0.0,
            rng=np.random.default_rng(key_to_seed("data_pruning", "policy", seed, cycle)),
            cost=self.cost,
            strata=self.strata,
            budgets=options.keep * self.totals,
            visits=history.visits,
            forced=self.forced,
        )

    def plan(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the keep-set (N,), and the weights (N,) or None."""
        answer = self.policy.function(self.context)
        if isinstance(answer, Selection):
            return self._take(checked_selection(answer, self.options.policy, len(self.index)))
        if not isinstance(answer, Ranking):
            answer = Ranking(answer)
        return self._fill(checked_ranking(answer, self.options.policy, self.context)), None

    def _old_ones(self) -> np.ndarray | None:
        """Return the cuts (N,) bool that are kept for their age; None if no cut is forced.

        A cut is due when ``max_age`` cycles in a row have not kept it. The due cuts are spread over
        the next cycles. Each cycle forces 1 in ``max_age`` of what a cycle can drop, oldest first,
        ties by index. Therefore no cut is skipped more than ``2 max_age - 1`` times in a row.

        A ranked policy of this package can drop the share ``1 - keep`` of each stratum. Its forced
        cuts fit the budget if ``keep >= 1 / (max_age + 1)``. With floors, an emergent rule or a
        user's policy, a cycle may drop all of a stratum.
        """
        limit = self.options.max_age
        if self.policy.static or not limit:
            return None
        due = self.history.age >= limit
        if not due.any():
            return None
        strata, dropped = self.strata, self.totals
        if self.policy.emergent:
            strata, dropped = None, np.array([dropped.sum()])
        elif not self.options.floors and ":" not in self.options.policy:
            # a plan may miss a stratum's budget by a cut or two
            longest = float(self.index.duration.max()) if self.options.unit == "seconds" else 1.0
            dropped = (1 - self.options.keep) * dropped + 2 * longest
        budgets = dropped / limit
        age = -self.history.age.astype(np.float32)
        forced = select(age, self.cost, budgets, strata, candidates=due, cover=True)
        self.report["forced"] = int(np.count_nonzero(forced))
        self.report["deferred"] = int(np.count_nonzero(due)) - self.report["forced"]
        return forced

    def _fill(self, ranking: Ranking) -> np.ndarray:
        """Return the cuts (N,) bool that a ranking keeps, with cuts kept for floors and ages."""
        ranking = self._urgent_first(ranking)
        keep = self._within_budget(ranking, self.forced)
        groups: Groups = {}
        turn = 0
        while lacking := below_floor(self.index, self.options.floors, self.cost, keep):
            # a turn may take cuts from groups that had enough; after 5 turns all groups come first
            turn += 1
            for name, below in lacking.items():
                groups[name] = groups.get(name, False) | below | (turn > 5)
            must = first_of_groups(self.index, self.options.floors, self.cost, groups, ranking)
            self.report["floored"] = int(np.count_nonzero(must))
            if self.forced is not None:
                must |= self.forced
            # where there are floors, `_urgent_first` gives tiers
            tier = np.where(must, np.uint16(_MUST), cast(np.ndarray, ranking.tier))
            keep = self._within_budget(Ranking(ranking.priority, tier), must)
        self._note_excess(keep)
        return keep

    def _note_excess(self, keep: np.ndarray) -> None:
        """Add a note to the report if the plan exceeds the budget by more than one cut."""
        kept, whole = float(totals(self.cost, None, 1, keep)[0]), float(self.totals.sum())
        if kept - float(self.context.budgets.sum()) > float(self.cost.max()):
            self.report["notes"].append(
                f"kept {kept / whole:.4f} of the {self.options.unit} instead of "
                f"{self.options.keep:.4f}: group floors ({self.report['floored']} cuts) and ages "
                f"({self.report['forced']} cuts) ask for more"
            )

    def _urgent_first(self, ranking: Ranking) -> Ranking:
        """Return a ranking with forced cuts first, then cuts without a score in random order."""
        unknown = self._unknown()
        if self.forced is None and unknown is None and not self.options.floors:
            return ranking
        priority, tier = ranking
        if tier is None:
            tier = np.full(len(priority), _POLICY, np.uint16)
        else:
            tier = tier.astype(np.uint16) + np.uint16(_POLICY)
        if unknown is not None:
            priority = np.where(unknown, self.rng.random(len(priority), np.float32), priority)
            tier[unknown] = _UNKNOWN
        if self.forced is not None:
            tier[self.forced] = _MUST
        return Ranking(priority, tier)

    def _within_budget(self, ranking: Ranking, must: np.ndarray | None) -> np.ndarray:
        """Return the cuts (N,) bool that come first in each stratum, up to its budget.

        If a stratum must keep more than its budget, the other strata keep less.

        Args:
            ranking: the order of the cuts.
            must: (N,) bool, the cuts of the first tier, which are kept even above the budget.
        """
        budgets = self.context.budgets
        if must is not None:
            least = totals(self.cost, self.strata, len(budgets), must)
            slack = np.maximum(budgets - least, 0)
            left = max(float(budgets.sum() - least.sum()), 0.0)
            if slack.sum() > left:
                slack *= left / slack.sum()
            budgets = least + slack
        return select(ranking.priority, self.cost, budgets, self.strata, ranking.tier)

    def _take(self, selection: Selection) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the keep-set and weights of an emergent rule.

        Cuts that are kept for an unknown score, their age or a floor come on top, with weight 1.
        """
        keep = selection.keep.copy()
        for more in (self.forced, self._unknown()):
            if more is not None:
                keep |= more
        floors = self.options.floors
        if lacking := below_floor(self.index, floors, self.cost, keep):
            draws = Ranking(self.rng.random(len(keep), np.float32), (~keep).view(np.uint8))
            floored = first_of_groups(self.index, floors, self.cost, lacking, draws) & ~keep
            self.report["floored"] = int(np.count_nonzero(floored))
            keep |= floored
        weights = selection.weights
        if weights is not None:
            weights = np.where(selection.keep, weights, keep.astype(np.float32))
        return keep, weights

    def _unknown(self) -> np.ndarray | None:
        """Return the cuts (N,) bool without a score; None if the policy did not read scores."""
        if not self.context.used_scores:
            return None
        unknown = ~self.context.known
        count = int(np.count_nonzero(unknown))
        self.report["unknown"] = count
        return unknown if count else None


def _strata(
    index: CutIndex, options: DataPruningOptions, policy: Policy
) -> tuple[np.ndarray | None, int]:
    """Return the stratum of each cut (N,), or None for one stratum, and the number of strata."""
    classes = _classes(options, policy)
    count = index.num_strata(*classes)
    return (index.strata(*classes) if count > 1 else None), count


def _classes(options: DataPruningOptions, policy: Policy) -> tuple[int, str]:
    """Return the number of duration strata, and the grouping whose groups each have that many."""
    return (max(options.strata, 1) if policy.stratified else 1), options.stratify_by


def _inverse_share(
    index: CutIndex, strata: tuple[np.ndarray | None, int], keep: np.ndarray
) -> np.ndarray:
    """Return weights (N,): a stratum's number of cuts over its number of kept cuts; 0 if dropped.

    The inverse of a weight is a cut's chance to be kept by a random draw. The weights of a stratum
    with a kept cut sum to its number of cuts.
    """
    codes, count = strata
    ones = np.broadcast_to(np.float32(1), len(index))
    kept = totals(ones, codes, count, keep)
    factors = (totals(ones, codes, count) / np.maximum(kept, 1)).astype(np.float32)
    weights = np.full(len(keep), factors[0]) if codes is None else factors[codes]
    weights[~keep] = 0
    return weights
