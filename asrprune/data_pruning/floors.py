"""Apply floors: the minimum share that is kept of each language, speaker or corpus."""

from functools import partial

import numpy as np

from asrprune.base.errors import UserError, nearest
from asrprune.data_pruning.context import Ranking
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.selection import select, select_many, totals

GROUPS_WITH_CUTS = ("language", "corpus")  # every plan keeps a cut of each of their groups
Groups = dict[str, np.ndarray]  # name of a grouping -> (groups,) bool


def check_floors(index: CutIndex, floors: dict[str, float]) -> None:
    """Check that the training manifest gives every grouping that has a floor.

    Args:
        index: of the training cuts.
        floors: grouping -> minimum share that is kept of each group.

    Raises:
        UserError: the manifest does not have a grouping that ``floors`` names.
    """
    for name in floors:
        if name not in index.groups:
            known = ", ".join(index.groups) or "no groups"
            raise UserError(
                f"data_pruning.floors.{name}: the training manifest does not give the {name} of "
                f"its cuts. It gives: {known}{nearest(name, index.groups)}"
            )


def below_floor(
    index: CutIndex, floors: dict[str, float], cost: np.ndarray, keep: np.ndarray
) -> Groups:
    """Return the groups that are kept below their floor. Groupings without such a group are absent.

    Args:
        index: of the training cuts.
        floors: grouping -> minimum share that is kept of each group.
        cost: (N,) cost of each cut.
        keep: (N,) bool, the keep-set.
    """
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
    """Return the first cuts (N,) bool of each of ``groups``, as many as their floors ask for.

    Args:
        index: of the training cuts.
        floors: grouping -> minimum share that is kept of each group.
        cost: (N,) cost of each cut.
        groups: the groups, as `below_floor` returns them.
        ranking: the order of the cuts.
    """
    result = np.zeros(len(index), bool)
    for name, chosen in groups.items():
        codes, names = index.groups[name]
        budgets = floors[name] * totals(cost, codes, len(names))
        few = len(names) <= 100  # few groups have small histograms
        choose = partial(select, cover=True) if few else select_many
        result |= choose(ranking.priority, cost, budgets, codes, ranking.tier, chosen[codes])
    return result


def check_left(keep: np.ndarray, cycle: int) -> None:
    """Check that a keep-set leaves cuts to train on.

    Args:
        keep: (N,) bool, the keep-set.
        cycle: the number of the cycle, for the message.

    Raises:
        UserError: no cut is kept.
    """
    if not keep.any():
        raise UserError(
            f"data_pruning keeps none of the {len(keep)} training cuts in cycle {cycle}. Raise "
            "data_pruning.keep."
        )


def without_cuts(index: CutIndex, keep: np.ndarray) -> dict[str, list[str]]:
    """Return the languages and corpora of which a keep-set (N,) has no cut.

    Returns:
        Name of the grouping -> names of its groups. Groupings without such a group are absent.
    """
    ones = np.broadcast_to(np.float32(1), len(keep))
    result = {}
    for name in GROUPS_WITH_CUTS:
        if name in index.groups:
            codes, names = index.groups[name]
            empty = np.flatnonzero(totals(ones, codes, len(names), keep) == 0)
            if len(empty):
                result[name] = [names[code] for code in empty]
    return result


def oldest_of(index: CutIndex, groups: dict[str, list[str]], age: np.ndarray) -> np.ndarray:
    """Return one cut of each group, the one that has been skipped longest; ties by index.

    Args:
        index: of the training cuts.
        groups: name of the grouping -> names of its groups.
        age: (N,) cycles since a cycle kept the cut.

    Returns:
        The lines of the cuts in the index.
    """
    found = []
    for name, wanted in groups.items():
        codes, names = index.groups[name]
        for one in wanted:
            lines = np.flatnonzero(codes == list(names).index(one))
            found.append(lines[np.argmax(age[lines])])
    return np.array(found, np.int64)
