"""Policies whose rule decides how much is kept; the plan reports it. Strata do not apply."""

import math

import numpy as np

from asrprune.data_pruning.context import Context, Selection, check_range
from asrprune.data_pruning.index import chunks
from asrprune.data_pruning.selection import select, totals


def infobatch(context: Context) -> Selection:
    """Of the scores below their mean a random share ``1-r = k``, and all others.

    What is kept of the lower ones weighs ``1/(1-r)`` (more exactly: their number before over that
    after, so that all weights sum to N); all others weigh 1. The full data at the end is
    ``data_pruning.anneal``. InfoBatch, Qin et al., ICLR 2024.
    """
    low = _below_mean(context.score)
    count = int(low.sum())
    if not count:
        return Selection(np.ones(len(context), bool))
    # those forced for their age are among the kept share, for which the weights account
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
    """A window over groups of like score, inside a random share ``1-r = k``.

    k-means splits the scores of the random share into ``groups``; kept are ``round(alpha groups)``
    neighbouring ones. The window moves on by a group in each cycle, from the easiest to the
    hardest, and starts again. SeTa, Zhou et al., CVPR 2025.
    """
    check_range("groups", groups, 1, 1000)
    check_range("alpha", alpha, 0, 1)
    pool = select(context.uniform(), context.cost, np.array([context.keep * _sum(context.cost)]))
    score = context.score
    values = score[pool]
    values = values[np.isfinite(values)]
    if not len(values):  # none of the pool is known, and what is unknown is kept anyway
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
    """A random share ``k`` of each of ``buckets`` equally large strata of early score.

    COWERAGE, Azeemi et al. 2022, arXiv 2203.09829, with the WER as the score; here whatever
    ``data_pruning.score`` is, at the end of the warm-up.
    """
    check_range("buckets", buckets, 1, 100)
    score = context.score
    known = np.isfinite(score)
    values = score[known]
    places = np.arange(1, buckets) * len(values) // buckets
    values.partition(places)
    edges = np.unique(values[places])
    codes = np.empty(len(context), np.uint8)
    for part in chunks(len(codes)):
        codes[part] = np.searchsorted(edges, score[part], side="right")
    del values
    budgets = context.keep * totals(context.cost, codes, len(edges) + 1, known)
    return Selection(select(context.uniform(), context.cost, budgets, codes, candidates=known))


def kmeans_edges(values: np.ndarray, groups: int, rounds: int = 300) -> np.ndarray:
    """The boundaries (groups-1,) float64 between clusters of ascending ``values``, by Lloyd's rule.

    Clusters of numbers are intervals, so a round needs no more than the sums between boundaries.
    The first centres are the middle values of equally large parts; a centre without values stays
    where it is.
    """
    sums = _PrefixSums(values)
    centres = values[(2 * np.arange(groups) + 1) * len(values) // (2 * groups)].astype(np.float64)
    places = None
    for _ in range(rounds):
        edges = (centres[1:] + centres[:-1]) / 2
        # float32 values against float64 edges: compared in float64, a few values at a time
        found = np.array([_place(values, edge) for edge in edges], np.int64)
        if places is not None and (found == places).all():
            break
        places = found
        bounds = np.concatenate(([0], places, [len(values)]))
        counts = np.diff(bounds)
        means = np.diff([sums.to(int(bound)) for bound in bounds]) / np.maximum(counts, 1)
        centres = np.where(counts > 0, means, centres)
    return edges


class _PrefixSums:
    """Sums of the first values, of which only each 4,096th is kept."""

    BLOCK = 4096

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        starts = np.arange(0, len(values), self.BLOCK)
        blocks = np.add.reduceat(values, starts, dtype=np.float64)
        self.before = np.concatenate(([0.0], np.cumsum(blocks)))

    def to(self, end: int) -> float:
        block = end // self.BLOCK
        rest = self.values[block * self.BLOCK : end].sum(dtype=np.float64)
        return float(self.before[block] + rest)


def _place(values: np.ndarray, edge: float) -> int:
    """How many of the ascending float32 ``values`` are below a float64 ``edge``."""
    return int(np.searchsorted(values, _float32_from(edge), side="left"))


def _float32_from(bound: float) -> np.float32:
    """The least float32 that is not below ``bound``: the same numbers are below both."""
    near = np.float32(bound)
    return near if float(near) >= bound else np.nextafter(near, np.float32(np.inf))


def _below_mean(score: np.ndarray) -> np.ndarray:
    """Which scores (N,) are known and below the mean of all known ones."""
    total, count = 0.0, 0
    for part in chunks(len(score)):
        known = score[part][np.isfinite(score[part])]
        total, count = total + float(known.sum(dtype=np.float64)), count + len(known)
    return score < _float32_from(total / count)


def _sum(cost: np.ndarray) -> float:
    return float(np.sum(cost, dtype=np.float64))
