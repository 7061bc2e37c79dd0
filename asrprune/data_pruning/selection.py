"""Choose what comes first up to a budget, in strata, by histograms instead of sorting.

Passes over the upper, middle and lower bits of the priorities find the exact priority at which each
stratum's budget is used up; a last one takes those before it, and of equal ones the first by index.
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
    """What comes first by (tier, priority, index) in each stratum, as far as its budget goes.

    A stratum takes the longest run of first cuts that costs no more than its budget. With
    ``cover`` it takes one more where that leaves some of the budget. Else such further cuts are
    taken, the most fitting first, as long as the cost of all comes nearer to the sum of budgets:
    the difference is half a cut at most (where no stratum lacks cuts).

    Args:
        priority: (N,) float32, lower comes first; where NaN comes is not defined.
        cost: (N,) above 0; exact sums need multiples of a power of two.
        budgets: (strata,) in units of cost; below 0 is 0.
        codes: (N,) strata, of the smallest unsigned type; None: one stratum.
        tier: (N,) uint8 or uint16, before the priority; None: all alike.
        candidates: (N,) bool; None: all.

    Returns:
        (N,) bool.
    """
    budgets = np.maximum(np.asarray(budgets, dtype=np.float64), 0)
    tiers, spent = _tiers(cost, budgets, codes, tier, candidates)
    threshold = np.zeros(len(budgets), np.int32)
    closed = np.zeros(len(budgets), bool)  # strata of which everything is taken
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
    """As :func:`select` with ``cover``, for any number of strata and few candidates, by sorting."""
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
    """The cost (strata,) float64 of the candidates of each stratum."""
    return _tier_totals(cost, codes, strata, None, candidates)[:, 0]


def _tier_totals(
    cost: np.ndarray,
    codes: np.ndarray | None,
    strata: int,
    tier: np.ndarray | None,
    candidates: np.ndarray | None,
) -> np.ndarray:
    """The cost (strata, tiers) float64 of the candidates."""
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
    """The tier (strata,) in which a budget is used up, and the cost of those before it."""
    if tier is None:
        return np.zeros(len(budgets), np.uint8), np.zeros(len(budgets))
    sums = _tier_totals(cost, codes, len(budgets), tier, candidates).cumsum(1)
    tiers = np.minimum((sums <= budgets[:, None]).sum(1), sums.shape[1] - 1)
    before = np.where(tiers > 0, sums[np.arange(len(budgets)), tiers - 1], 0.0)
    return tiers.astype(tier.dtype), before


def _of_cuts(values: np.ndarray, codes: np.ndarray | None, part: slice) -> np.ndarray:
    """The values of the cuts' strata."""
    return values[0] if codes is None else values.take(codes[part])


def _keys(priority: np.ndarray) -> np.ndarray:
    """int32 in the order of float32."""
    bits = (priority.astype(np.float32, copy=False) + np.float32(0)).view(np.int32)  # -0 is 0
    return bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))


def _crossing(costs: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first bin (strata,) that goes over what is left, and the cost of those before it."""
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
    """Take the strata's next cuts: all that are partly paid for, or what comes nearer in sum."""
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
