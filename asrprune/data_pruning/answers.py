"""Check what a policy returned. The policy may be a user's own."""

import numpy as np

from asrprune.base.errors import UserError
from asrprune.data_pruning.context import MAX_TIER, Context, Ranking, Selection


def checked_ranking(ranking: Ranking, policy: str, context: Context) -> Ranking:
    """Check the ranking that a policy returned.

    Args:
        ranking: the answer of the policy.
        policy: name of the policy, for the message.
        context: what the policy was given.

    Returns:
        The ranking, with ``priority`` as float32.

    Raises:
        UserError: the priority is not one number for each cut; the tiers are not valid; or a
            priority is NaN though the cut has a known score or the policy used no scores.
    """
    priority = np.asarray(ranking.priority)
    tier = None if ranking.tier is None else np.asarray(ranking.tier)
    fits = priority.shape == (len(context),) and priority.dtype.kind in "fiu"
    if fits and tier is not None:
        fits = tier.shape == priority.shape and tier.dtype in (np.uint8, np.uint16)
        fits = fits and (tier.dtype == np.uint8 or tier.max() <= MAX_TIER)
    if not fits:
        raise UserError(
            f"data_pruning.policy={policy} must return a number for each of {len(context)} cuts "
            f"(and uint8 or uint16 tiers up to {MAX_TIER}), or a Selection"
        )
    wrong = np.isnan(priority)
    if wrong.any() and (not context.used_scores or (wrong & context.known).any()):
        raise UserError(
            f"data_pruning.policy={policy} returned NaN for cuts with known scores. It must return "
            "a number for each of them."
        )
    return Ranking(priority.astype(np.float32, copy=False), tier)


def checked_selection(selection: Selection, policy: str, count: int) -> Selection:
    """Check the selection that a policy returned.

    Args:
        selection: the answer of the policy.
        policy: name of the policy, for the message.
        count: the number N of cuts.

    Returns:
        The selection, of arrays.

    Raises:
        UserError: ``keep`` is not one boolean for each cut; the weights are not one number for each
            cut; or the weight of a kept cut is not finite.
    """
    keep = np.asarray(selection.keep)
    weights = None if selection.weights is None else np.asarray(selection.weights)
    fits = keep.shape == (count,) and keep.dtype == bool
    if fits and weights is not None:
        fits = weights.shape == keep.shape and weights.dtype.kind in "fiu"
        fits = fits and bool(np.isfinite(weights[keep]).all())
    if not fits:
        raise UserError(
            f"data_pruning.policy={policy} returned a Selection that is not valid. `keep` must be "
            f"one boolean for each of {count} cuts, and `weights` finite numbers for kept cuts."
        )
    return Selection(keep, weights)
