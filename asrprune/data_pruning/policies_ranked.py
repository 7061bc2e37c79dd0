"""Policies with a fixed budget: each ranks the cuts, and the first cuts are kept.

Notation: N is the number of cuts, k the share to keep. The score is the typical score of an
utterance's visits, or its last score with ``data_pruning.smooth=false``. Ranks and shares are those
inside a duration stratum, in units of ``data_pruning.unit``. Static policies call the same
functions once, after the warm-up.
"""

import numpy as np

from asrprune.data_pruning.context import MAX_TIER, Context, Ranking, check_choice, check_range
from asrprune.data_pruning.index import chunks


def random(context: Context, replacement: bool = True) -> Ranking:
    """Keep ``k N`` cuts by a uniform draw in each cycle.

    With ``replacement`` the draws of cycles are independent (dynamic random). Without it the cuts
    visited least come first, so that the visits of cuts differ by at most one. This is training on
    the full data with a shorter schedule (RS2, Okanovic et al., ICLR 2024).
    """
    if replacement:
        return Ranking(context.uniform())
    return Ranking(context.uniform(), _ranks(context.visits))


def easy(context: Context) -> Ranking:
    """Keep the ``k N`` lowest scores (DDP-ASR, arXiv 2406.18373)."""
    return Ranking(context.score)


def hard(context: Context) -> Ranking:
    """Keep the ``k N`` highest scores (DDP-ASR, arXiv 2406.18373)."""
    return Ranking(-context.score)


def middle(context: Context) -> Ranking:
    """Keep ranks ``[(1-k)/2 N, (1+k)/2 N)`` of ascending score: both ends are dropped."""
    return _window(context, 0.5)


def easy2hard(context: Context, mode: str = "window", switch: float = 0.5) -> Ranking:
    """Move from easy to hard cuts as progress p goes from 0 to 1 (DDP-ASR, arXiv 2406.18373).

    The ``mode`` decides what is kept:

    - ``window``: ranks ``[p (1-k) N, p (1-k) N + k N)`` of ascending score
    - ``quota``: the ``(1-p) k N`` easiest and the ``p k N`` hardest
    - ``switch``: *easy* while ``p < switch``, then *hard*
    """
    check_choice("mode", mode, ("window", "quota", "switch"))
    check_range("switch", switch, 0, 1)
    if mode == "window":
        return _window(context, context.progress)
    if mode == "switch":
        return easy(context) if context.progress < switch else hard(context)
    score = context.score
    easiest = context.first(score, (1 - context.progress) * context.keep)
    return Ranking(np.where(easiest, score, -score), (~easiest).view(np.uint8))


def epsilon_greedy(context: Context, epsilon: float = 0.1) -> Ranking:
    """Keep the ``(1-epsilon) k N`` highest running means, and ``epsilon k N`` others at random.

    Raju et al. 2021, "Accelerating deep learning with dynamic data pruning", arXiv 2111.12621.
    """
    check_range("epsilon", epsilon, 0, 1)
    priority = -context.mean
    greedy = context.first(priority, (1 - epsilon) * context.keep)
    return Ranking(np.where(greedy, priority, context.uniform()), (~greedy).view(np.uint8))


def ucb(context: Context, c: float = 1.0) -> Ranking:
    """Keep the ``k N`` highest ``m + c sqrt(v)``, with running mean m and variance v of the score.

    Raju et al. 2021, arXiv 2111.12621.
    """
    check_range("c", c, 0, 1e6)
    bound = np.sqrt(context.variance)
    bound *= -np.float32(c)
    bound -= context.mean
    return Ranking(bound)


def orderdp(context: Context, pool: float = 0.0) -> Ranking:
    """Keep the ``k N`` highest scores of a uniform pool of ``pool N`` cuts (OrderDP, ICLR 2026).

    By default the pool leaves out 60 % of the cuts that are dropped, as published. At ``k`` = 0.75
    the pool has 0.85 N cuts.
    """
    if not pool:
        pool = 1 - 0.6 * (1 - context.keep)
    check_range("pool", pool, context.keep, 1)
    outside = ~context.first(context.uniform(), pool)
    return Ranking(-context.score, outside.view(np.uint8))


def longest(context: Context) -> Ranking:
    """Keep the longest cuts up to ``k N``, over the whole corpus and not inside strata."""
    return Ranking(-context.duration)


def shortest(context: Context) -> Ranking:
    """Keep the shortest cuts up to ``k N``, over the whole corpus and not inside strata."""
    return Ranking(context.duration)


def el2n(context: Context) -> Ranking:
    """Keep the ``k N`` highest mean scores, which are EL2N with ``data_pruning.score=el2n``.

    EL2N is the norm of softmax minus one-hot (Paul et al., NeurIPS 2021), with teacher forcing,
    averaged over the tokens.
    """
    return Ranking(-context.mean)


def forgetting(context: Context, magnitude: bool = True) -> Ranking:
    """Keep the ``k N`` cuts whose score increased most, summed over the cycles of the warm-up.

    Without ``magnitude`` the cuts with the largest number of increases are kept (Toneva et al.,
    ICLR 2019). Many cuts have the same number of increases.
    """
    return Ranking(-(context.worse_sum if magnitude else context.worse_times))


def _ranks(numbers: np.ndarray) -> np.ndarray:
    """Return the rank (N,) uint16 of each uint16 number among the distinct numbers, as a tier."""
    there = np.zeros(1 << 16, bool)
    for part in chunks(len(numbers)):
        there[numbers[part]] = True
    rank_of = np.minimum(np.cumsum(there) - 1, MAX_TIER).astype(np.uint16)
    ranks = np.empty_like(numbers)
    for part in chunks(len(numbers)):
        ranks[part] = rank_of[numbers[part]]
    return ranks


def _window(context: Context, position: float) -> Ranking:
    """Rank ascending scores from rank ``position (1-k) N`` on, then the scores below.

    The highest of the scores below comes first. The kept cuts therefore have neighbouring ranks,
    even if the scores from that rank on do not use up the budget.
    """
    score = context.score
    if not position:
        return Ranking(score)
    if position == 1:  # keep the highest scores, even if rounding makes both parts too short
        return Ranking(-score)
    below = context.first(score, position * (1 - context.keep))
    return Ranking(np.where(below, -score, score), below.view(np.uint8))
