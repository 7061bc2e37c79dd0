"""Compute sparsity, and the steps that rank weights anew, as pure functions of progress."""

from asrprune.weight_pruning.options import ScheduleOptions


def sparsity_at(progress: float, options: ScheduleOptions) -> float:
    """Return the sparsity at ``progress`` (0 to 1).

    The sparsity is ``initial`` before ``start`` and ``final`` from ``end`` on. Between them it is
    linear or cubic: s_f + (s_0 - s_f) (1 - t)^3 with t from 0 to 1 (Zhu and Gupta, arXiv
    1710.01878, section 3). Cubic is fast at first, while there is much to drop. A constant sparsity
    is ``final`` from ``start`` on.
    """
    if progress < options.start:
        return options.initial
    if options.kind == "constant" or progress >= options.end:
        return options.final
    left = (options.end - progress) / (options.end - options.start)
    share = left**3 if options.kind == "cubic" else left
    return options.final + (options.initial - options.final) * share


def needs_refresh(step: int, progress: float, options: ScheduleOptions) -> bool:
    """Return whether to rank the weights anew before an optimiser step.

    This is so at each ``refresh_interval`` steps, counted from 0, until progress reaches
    ``freeze``.
    """
    return progress < options.freeze and step % options.refresh_interval == 0
