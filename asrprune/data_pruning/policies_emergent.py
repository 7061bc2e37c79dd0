"""Policies with an emergent budget: their rule decides how much is kept. Strata do not apply.

The plan reports how much is kept.
"""

import math

import numpy as np

from asrprune.data_pruning.context import Context, Selection, check_range
from asrprune.data_pruning.index import chunks
from asrprune.data_pruning.selection import select, totals


def infobatch(context: Context) -> Selection:
    """Keep a random share ``1-r = k`` of the cuts that score below the mean, and all other cuts.

    The kept cuts below the mean weigh ``1/(1-r)``, all other cuts 1. The exact weight is the number
    of cuts below the mean over the number of them that is kept, so that all weights sum to N. The
    training on all data at the end is ``data_pruning.anneal``. InfoBatch, Qin et al., ICLR 2024.
    """
    low = _below_mean(context.score)
    count = int(low.sum())
    if not count:
        return Selection(np.ones(len(context), bool))
    # cuts forced for their age belong to the kept share, so that the weights account for them
    number = max(1, math.floor(context.keep * count + 0.5))
    tier = None
    if context.forced is not None:
        number = max(number, int((context.forced & low).sum()))
        tier = (~context.forced).view(np.uint8)
    ones = np.broadcast_to(np.float32(1), len(context))
    drawn = select(context.uniform(), ones, np.array([number]), tier=tier, candidates=low)
    weights = np.ones(len(context), np.float32)
    weights[drawn] = count / number
    return Selection(~low | drawn, weights)


def seta(context: Context, groups: int = 10, alpha: float = 0.5) -> Selection:
    """Keep a window of groups of similar score, inside a random share ``1-r = k``.

    k-means splits the scores of the random share into ``groups`` groups. The window has
    ``round(alpha groups)`` neighbouring groups. It moves on by one group in each cycle, from the
    easiest group to the hardest, and then starts again. SeTa, Zhou et al., CVPR 2025.
    """
    check_range("groups", groups, 1, 1000)
    check_range("alpha", alpha, 0, 1)
    pool = select(context.uniform(), context.cost, np.array([context.keep * _sum(context.cost)]))
    score = context.score
    values = score[pool]
    values = values[np.isfinite(values)]
    if not len(values):  # no cut of the pool has a score, and the plan keeps such cuts anyway
        return Selection(np.zeros(len(context), bool))
    values.sort()
    edges = np.concatenate(([-np.inf], kmeans_edges(values, groups), [np.inf]))
    width = max(1, math.floor(alpha * groups + 0.5))
    start = context.pruned_cycle % (groups - width + 1)
    for part in chunks(len(pool)):
        values = score[part].astype(np.float64)
        pool[part] &= (values >= edges[start]) & (values < edges[start + width])
    return Selection(pool)


def cowerage(context: Context, buckets: int = 10) -> Selection:
    """Keep a random share ``k`` of each of ``buckets`` equally large strata of the early score.

    The score is ``data_pruning.score`` at the end of the warm-up. In the paper it is the WER.
    COWERAGE, Azeemi et al. 2022, arXiv 2203.09829.
    """
    check_range("buckets", buckets, 1, 100)
    score = context.score
    known = np.isfinite(score)
    values = score[known]
    positions = np.arange(1, buckets) * len(values) // buckets
    values.partition(positions)
    edges = np.unique(values[positions])
    codes = np.empty(len(context), np.uint8)
    for part in chunks(len(codes)):
        codes[part] = np.searchsorted(edges, score[part], side="right")
    del values
    budgets = context.keep * totals(context.cost, codes, len(edges) + 1, known)
    return Selection(select(context.uniform(), context.cost, budgets, codes, candidates=known))


def kmeans_edges(values: np.ndarray, groups: int, rounds: int = 300) -> np.ndarray:
    """Return the boundaries (groups-1,) float64 between k-means clusters of ascending ``values``.

    Each round is a step of Lloyd's rule. Clusters of numbers are intervals, so a round needs only
    the sums between boundaries. The first centres are the middle values of equally large parts. A
    centre without values does not move.

    Args:
        values: (n,) float32, at least one.
        groups: number of clusters.
        rounds: maximum number of rounds.
    """
    sums = _PrefixSums(values)
    centres = values[(2 * np.arange(groups) + 1) * len(values) // (2 * groups)].astype(np.float64)
    positions = None
    for _ in range(rounds):
        edges = (centres[1:] + centres[:-1]) / 2
        found = np.array([_count_below(values, edge) for edge in edges], np.int64)
        if positions is not None and (found == positions).all():
            break
        positions = found
        bounds = np.concatenate(([0], positions, [len(values)]))
        counts = np.diff(bounds)
        means = np.diff([sums.to(int(bound)) for bound in bounds]) / np.maximum(counts, 1)
        centres = np.where(counts > 0, means, centres)
    return edges


class _PrefixSums:
    """Gives sums of the first values. Only every 4,096th sum is stored."""

    BLOCK = 4096

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        starts = np.arange(0, len(values), self.BLOCK)
        blocks = np.add.reduceat(values, starts, dtype=np.float64)
        self.before = np.concatenate(([0.0], np.cumsum(blocks)))

    def to(self, end: int) -> float:
        """Return the sum of the first ``end`` values."""
        block = end // self.BLOCK
        rest = self.values[block * self.BLOCK : end].sum(dtype=np.float64)
        return float(self.before[block] + rest)


def _count_below(values: np.ndarray, edge: float) -> int:
    """Return how many of the ascending float32 ``values`` are below a float64 ``edge``."""
    return int(np.searchsorted(values, _float32_from(edge), side="left"))


def _float32_from(bound: float) -> np.float32:
    """Return the lowest float32 that is not below ``bound``. The same float32s are below both."""
    near = np.float32(bound)
    return near if float(near) >= bound else np.nextafter(near, np.float32(np.inf))


def _below_mean(score: np.ndarray) -> np.ndarray:
    """Return which scores (N,) are known, and below the mean of all known scores."""
    total, count = 0.0, 0
    for part in chunks(len(score)):
        known = score[part][np.isfinite(score[part])]
        total, count = total + float(known.sum(dtype=np.float64)), count + len(known)
    return score < _float32_from(total / count)


def _sum(cost: np.ndarray) -> float:
    return float(np.sum(cost, dtype=np.float64))
