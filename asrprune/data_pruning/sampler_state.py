"""Convert the parts of a sampler's state to values for a checkpoint, and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrprune.data_pruning.plan import Plan
from asrprune.data_pruning.scores import LOSS_CLASSES, ScoreTable

_PLAIN = ("cycle", "phase", "drops_time", "freeze")  # plain values of a plan


def saved_plan(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values and tensors: 1 bit per cut, and 4 bytes per cut for weights."""
    weights = plan.weights
    return {
        **{name: getattr(plan, name) for name in _PLAIN},
        "keep": torch.from_numpy(np.packbits(plan.keep)),
        "weights": None if weights is None else torch.from_numpy(weights).clone(),
        "report": dict(plan.report),
    }


def restored_plan(state: dict[str, Any], count: int) -> Plan:
    """Return the plan of ``count`` cuts from the result of `saved_plan`, which is not changed."""
    keep = np.unpackbits(state["keep"].numpy(), count=count).view(bool)
    weights = state["weights"]
    return Plan(
        **{name: state[name] for name in _PLAIN},
        keep=keep,
        weights=None if weights is None else weights.numpy().copy(),
        report=dict(state["report"]),
    )


def saved_pending(pending: dict[str, Tensor]) -> dict[str, Any]:
    """Return the scores gathered in a cycle, in a form for a checkpoint.

    Args:
        pending: ``sum`` and ``visits`` (U,), of one rank or added up over ranks, and ``trend``
            (ranks, LOSS_CLASSES, 3) or (LOSS_CLASSES, 3). Only classes that were seen are saved.
    """
    trend = pending["trend"].view(-1, LOSS_CLASSES, 3)
    classes = torch.nonzero(trend[:, :, 1].amax(0)).flatten()
    seen = bool(pending["visits"].any())
    return {
        "sum": pending["sum"].clone() if seen else None,
        "visits": pending["visits"].clone() if seen else None,
        "classes": classes,
        "trend": trend[:, classes].clone(),
    }


def restore_pending(scores: ScoreTable, state: dict[str, Any], rank: int, world_size: int) -> None:
    """Give a rank its part of the scores that were gathered in a cycle.

    Sums that were added up over ranks go to the first rank. Sums of one rank go to that rank, or to
    the first rank if there is no such rank any more. The
    trend is the rank's own if the state holds that trend. Else it is the mean of all trends in the
    state.

    Args:
        scores: the table of this rank.
        state: the state of a sampler.
        rank: number of this rank.
        world_size: number of ranks.
    """
    pending, ranks = state["pending"], state["ranks"]
    gathered = ranks == list(range(state["batching"]["world_size"]))
    owner = 0 if gathered or ranks[0] >= world_size else ranks[0]
    if pending["sum"] is not None and rank == owner:
        scores.load_pending(pending)
    trends = pending["trend"]
    own = gathered and len(ranks) == world_size
    trend = torch.zeros(LOSS_CLASSES, 3, dtype=torch.float64)
    trend[:, 2] = 1 if own else len(ranks)
    trend[pending["classes"]] = trends[rank] if own else trends.sum(0)
    scores.load_trend(trend)


def changed_batching(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the changed settings of batches, as texts such as ``seed (1 -> 2)``."""
    return [
        f"{name} ({before.get(name)} -> {now.get(name)})"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def lost_position(state: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return the warning that changed settings of batches cost the position in the epoch.

    Args:
        state: the saved state of a sampler.
        settings: the settings of batches today.

    Returns:
        The warning; empty if no setting has changed.
    """
    changed = changed_batching(state["batching"], settings)
    if not changed:
        return ""
    return (
        f"{', '.join(changed)} changed. Scores and keep-set are kept, but the position in epoch "
        f"{state['epoch']} is lost. The epoch starts again, and the cuts of "
        f"{state['batches'] * state['batching']['world_size']} batches are seen twice."
    )
