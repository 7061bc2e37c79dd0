"""Floors: no language, speaker or corpus falls under a given share of its own."""

from functools import partial

import numpy as np

from asrprune.data_pruning.context import Ranking
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.selection import select, select_many, totals
from asrprune.errors import UserError, nearest

Groups = dict[str, np.ndarray]  # name of a grouping -> (groups,) bool


def check_floors(index: CutIndex, floors: dict[str, float]) -> None:
    """Check that the manifest has the groupings that have a floor.

    Args:
        index: of the training cuts.
        floors: grouping -> share of each group that is kept at least.

    Raises:
        UserError: the manifest does not have a grouping that ``floors`` names.
    """
    for name in floors:
        if name not in index.groups:
            known = ", ".join(index.groups) or "no groups at all"
            raise UserError(
                f"data_pruning.floors.{name}: the training manifest tells apart {known}"
                f"{nearest(name, index.groups)}"
            )


def below_floor(
    index: CutIndex, floors: dict[str, float], cost: np.ndarray, keep: np.ndarray
) -> Groups:
    """The groups of which less is kept than their floor; only groupings that have some."""
    result = {}
    for name, share in floors.items():
        codes, names = index.groups[name]
        kept = totals(cost, codes, len(names), keep)
        lacking = kept < share * totals(cost, codes, len(names))
        if lacking.any():
            result[name] = lacking
    return result


def first_of_groups(
    index: CutIndex, floors: dict[str, float], cost: np.ndarray, groups: Groups, ranking: Ranking
) -> np.ndarray:
    """The first cuts (N,) bool of each of ``groups``, as many as their floors ask for."""
    result = np.zeros(len(index), bool)
    for name, chosen in groups.items():
        codes, names = index.groups[name]
        budgets = floors[name] * totals(cost, codes, len(names))
        few = len(names) <= 100  # groups, and so small histograms
        choose = partial(select, cover=True) if few else select_many
        result |= choose(ranking.priority, cost, budgets, codes, ranking.tier, chosen[codes])
    return result


def check_left(index: CutIndex, floors: dict[str, float], keep: np.ndarray, cycle: int) -> None:
    """Check that a keep-set leaves something to train on.

    Args:
        index: of the training cuts.
        floors: grouping -> share of each group that is kept at least.
        keep: (N,) bool, the keep-set.
        cycle: the number of the cycle, for the message.

    Raises:
        UserError: no cut is kept, or no cut of a language, of a corpus or of a group with a floor.
    """
    if not keep.any():
        raise UserError(
            f"data_pruning keeps none of the {len(keep)} training cuts in cycle {cycle}: raise "
            "data_pruning.keep"
        )
    ones = np.broadcast_to(np.float32(1), len(keep))
    for name, (codes, names) in index.groups.items():
        if name in ("language", "corpus") or floors.get(name):
            empty = np.flatnonzero(totals(ones, codes, len(names), keep) == 0)
            if len(empty):
                raise UserError(
                    f"data_pruning keeps no cut of {name} {names[empty[0]]!r} in cycle {cycle}: "
                    f"set data_pruning.floors.{name}, such as 0.3, to keep a share of each"
                )
