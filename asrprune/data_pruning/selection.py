"""Choose the first cuts of each stratum up to a budget, by histograms instead of sorting.

Three passes over the upper, middle and lower bits of the priorities find the exact priority at
which each stratum's budget is used up. A last pass takes the cuts before this priority. Of cuts
with equal priority it takes the first by index.
"""

import numpy as np

from asrprune.data_pruning.index import chunks

_LEVELS = ((20, 12), (10, 10), (0, 10))  # (shift, bits) of a key of 32 bits


def select(
    priority: np.ndarray,
    cost: np.ndarray,
    budgets: np.ndarray,
    codes: np.ndarray | None = None,
    tier: np.ndarray | None = None,
    candidates: np.ndarray | None = None,
    cover: bool = False,
) -> np.ndarray:
    """Return the cuts of each stratum that come first by (tier, priority, index), up to its budget.

    A stratum takes the longest run of first cuts that costs no more than its budget. With
    ``cover`` it takes its next cut too, if some of the budget is left. Without ``cover``, next cuts
    of the strata are taken, the best fitting first, as long as the total cost comes nearer to the
    sum of the budgets. The total then differs from the sum by at most half a cut, unless a stratum
    has too few cuts.

    Args:
        priority: (N,) float32, lower comes first. The order of NaN is not defined.
        cost: (N,) above 0; sums are exact for multiples of a power of two.
        budgets: (strata,) in units of cost; a budget below 0 counts as 0.
        codes: (N,) stratum of each cut, of the smallest unsigned type; None: one stratum.
        tier: (N,) uint8 or uint16, compared before the priority; None: all alike.
        candidates: (N,) bool, cuts that may be taken; None: all.
        cover: whether each stratum uses up its budget with one more cut.

    Returns:
        (N,) bool, the cuts that are taken.
    """
    budgets = np.maximum(np.asarray(budgets, dtype=np.float64), 0)
    tiers, spent = _tiers(cost, budgets, codes, tier, candidates)
    threshold = np.zeros(len(budgets), np.int32)
    closed = np.zeros(len(budgets), bool)  # strata of which all cuts are taken
    for shift, bits in _LEVELS:
        costs = np.zeros((len(budgets), 1 << bits))
        for part in chunks(len(priority)):
            keys = _keys(priority[part])
            inside = True if candidates is None else candidates[part]
            if tier is not None:
                inside = inside & (tier[part] == _of_cuts(tiers, codes, part))
            if shift + bits < 32:
                begun = _of_cuts(threshold, codes, part)
                inside = inside & (keys >> (shift + bits) == begun)
                bins = (keys >> shift) & ((1 << bits) - 1)
            else:
                bins = (keys >> shift) + (1 << (bits - 1))
            if codes is not None:
                bins += codes[part].astype(np.int32) << bits
            some = cost[part]
            if inside is not True:
                where = np.flatnonzero(inside)
                bins, some = bins[where], some[where]
            costs += np.bincount(bins, some, costs.size).reshape(costs.shape)
        crossing, before = _crossing(costs, budgets - spent)
        if shift + bits == 32:
            crossing -= 1 << (bits - 1)
            closed = spent + costs.sum(1) <= budgets
        spent = spent + before
        threshold = ((threshold << bits) + crossing).astype(np.int32)
    threshold[closed] = np.iinfo(np.int32).max

    keep = np.zeros(len(priority), bool)
    following: dict[int, int] = {}  # stratum -> its first cut that is not taken
    for part in chunks(len(priority)):
        keys, end = _keys(priority[part]), _of_cuts(threshold, codes, part)
        here, equal = keys < end, keys == end
        if tier is not None:
            last, tiers_here = _of_cuts(tiers, codes, part), tier[part]
            at = tiers_here == last
            here, equal = (here & at) | (tiers_here < last), equal & at
        if candidates is not None:
            here, equal = here & candidates[part], equal & candidates[part]
        keep[part] = here
        ties = np.flatnonzero(equal) + part.start
        for stratum in np.flatnonzero(~closed).tolist() if len(ties) else ():
            if stratum not in following:
                mine = ties if codes is None else ties[codes[ties] == stratum]
                sums = spent[stratum] + np.cumsum(cost[mine], dtype=np.float64)
                taken = int(np.searchsorted(sums, budgets[stratum], side="right"))
                keep[mine[:taken]] = True
                if taken:
                    spent[stratum] = sums[taken - 1]
                if taken < len(mine):
                    following[stratum] = int(mine[taken])
    _round(keep, following, cost, budgets - spent, cover)
    return keep


def select_many(
    priority: np.ndarray,
    cost: np.ndarray,
    budgets: np.ndarray,
    codes: np.ndarray,
    tier: np.ndarray | None,
    candidates: np.ndarray,
) -> np.ndarray:
    """Do what `select` does with ``cover``, by sorting: for many strata and few candidates.

    Arguments and result are those of `select`.
    """
    where = np.flatnonzero(candidates)
    tiers = np.zeros(len(where), np.uint8) if tier is None else tier[where]
    order = np.lexsort((_keys(priority[where]), tiers, codes[where]))
    where = where[order]
    code = codes[where]
    sums = np.cumsum(cost[where], dtype=np.float64)
    before = np.concatenate(([0.0], sums[:-1]))
    first = np.flatnonzero(np.diff(code, prepend=-1))  # of each stratum
    start = np.repeat(before[first], np.diff(first, append=len(code)))
    keep = np.zeros(len(priority), bool)
    keep[where[before - start < budgets[code]]] = True
    return keep


def totals(
    cost: np.ndarray,
    codes: np.ndarray | None,
    strata: int,
    candidates: np.ndarray | None = None,
) -> np.ndarray:
    """Return the cost (strata,) float64 of the candidates of each stratum.

    Args:
        cost: (N,) cost of each cut.
        codes: (N,) stratum of each cut; None: one stratum.
        strata: number of strata.
        candidates: (N,) bool, cuts that count; None: all.
    """
    return _tier_totals(cost, codes, strata, None, candidates)[:, 0]


def _tier_totals(
    cost: np.ndarray,
    codes: np.ndarray | None,
    strata: int,
    tier: np.ndarray | None,
    candidates: np.ndarray | None,
) -> np.ndarray:
    """Return the cost (strata, tiers) float64 of the candidates."""
    tiers = 1 if tier is None else int(tier.max()) + 1
    result = np.zeros(strata * tiers)
    for part in chunks(len(cost)):
        where = slice(None) if candidates is None else np.flatnonzero(candidates[part])
        costs = cost[part][where]
        if len(result) == 1:
            result += costs.sum(dtype=np.float64)
            continue
        bins = np.zeros(len(costs), np.int32) if codes is None else codes[part][where]
        if tier is not None:
            bins = bins.astype(np.int32) * tiers + tier[part][where]
        result += np.bincount(bins, costs, len(result))
    return result.reshape(strata, tiers)


def _tiers(
    cost: np.ndarray,
    budgets: np.ndarray,
    codes: np.ndarray | None,
    tier: np.ndarray | None,
    candidates: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tier (strata,) in which a budget is used up, and the cost of the tiers before."""
    if tier is None:
        return np.zeros(len(budgets), np.uint8), np.zeros(len(budgets))
    sums = _tier_totals(cost, codes, len(budgets), tier, candidates).cumsum(1)
    tiers = np.minimum((sums <= budgets[:, None]).sum(1), sums.shape[1] - 1)
    before = np.where(tiers > 0, sums[np.arange(len(budgets)), tiers - 1], 0.0)
    return tiers.astype(tier.dtype), before


def _of_cuts(values: np.ndarray, codes: np.ndarray | None, part: slice) -> np.ndarray:
    """Return the value of each cut's stratum, for the cuts of a slice."""
    return values[0] if codes is None else values.take(codes[part])


def _keys(priority: np.ndarray) -> np.ndarray:
    """Return int32 keys that have the order of the float32 priorities."""
    bits = (priority.astype(np.float32, copy=False) + np.float32(0)).view(np.int32)  # -0 is 0
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _crossing(costs: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bin (strata,) in which what is left is used up, and the cost of the bins before.

    Args:
        costs: (strata, bins) cost of each bin.
        left: (strata,) what is left of each budget.
    """
    sums = costs.cumsum(1)
    bins = (sums > left[:, None]).argmax(1)
    rows = np.arange(len(bins))
    return bins, sums[rows, bins] - costs[rows, bins]


def _round(
    keep: np.ndarray,
    following: dict[int, int],
    cost: np.ndarray,
    left: np.ndarray,
    cover: bool,
) -> None:
    """Take next cuts of the strata, as `select` describes for ``cover`` and without it.

    Args:
        keep: (N,) bool, the cuts taken so far; changed in place.
        following: stratum -> its first cut that is not taken.
        cost: (N,) cost of each cut.
        left: (strata,) what is left of each budget.
        cover: as in `select`.
    """
    if cover:
        for stratum, cut in following.items():
            keep[cut] |= left[stratum] > 0
        return
    missing = sum(float(left[stratum]) for stratum in following)
    costs = {stratum: float(cost[cut]) for stratum, cut in following.items()}
    for stratum in sorted(following, key=lambda s: (-left[s] / costs[s], s)):
        if costs[stratum] < 2 * missing:
            keep[following[stratum]] = True
            missing -= costs[stratum]
