"""Tell the phase of each cycle of a training: warm-up, pruned, or anneal at the end."""

import math
from collections.abc import Callable

from asrprune.data_pruning.options import DataPruningOptions

WARMUP, PRUNED, ANNEAL = "warmup", "pruned", "anneal"

# Share of the audio that policies with an emergent budget keep in a pruned cycle, from ``keep``.
EMERGENT_SHARES: dict[str, Callable[[float], float]] = {
    "infobatch": lambda keep: 1 - 0.65 * (1 - keep),  # 65 % of the scores are below the mean
    "seta": lambda keep: 0.45 * keep,  # mean over all windows, each with half of the groups
}


def cycle_phase(options: DataPruningOptions, cycle: int, cycles: int) -> str:
    """Return the phase of a cycle: ``warmup``, ``pruned`` or ``anneal``.

    Warm-up and anneal cycles keep all cuts and drop no time.
    """
    if cycle < options.warmup_cycles:
        return WARMUP
    return ANNEAL if cycle >= cycles - anneal_cycles(options, cycles) else PRUNED


def drops_time(options: DataPruningOptions, cycle: int, cycles: int) -> bool:
    """Return whether time may be dropped in a cycle.

    The cycle must be a pruned cycle between ``time.start`` and ``time.end``.
    """
    begins, ends = options.time.start * cycles, options.time.end * cycles
    inside = begins - 1e-9 <= cycle and cycle + 1 <= ends + 1e-9
    return inside and cycle_phase(options, cycle, cycles) == PRUNED


def phases(options: DataPruningOptions, epochs: int) -> list[str]:
    """Return the phase of each epoch of a training."""
    cycles = -(-epochs // options.cycle)
    return [cycle_phase(options, epoch // options.cycle, cycles) for epoch in range(epochs)]


def kept_shares(options: DataPruningOptions, epochs: int) -> list[tuple[float, bool]]:
    """Return the share of the audio that each epoch keeps, and whether it drops time.

    Args:
        options: of data pruning.
        epochs: number of epochs of the whole training.

    Returns:
        (share before time is dropped, whether time is dropped) of each epoch.
    """
    cycles = -(-epochs // options.cycle)
    kept = EMERGENT_SHARES.get(options.policy, lambda keep: keep)(options.keep)
    kept = 1.0 if options.policy == "full" or options.keep == 1 else kept
    found = []
    for epoch in range(epochs):
        cycle = epoch // options.cycle
        pruned = cycle_phase(options, cycle, cycles) == PRUNED
        drops = options.time.variant != "none" and drops_time(options, cycle, cycles)
        found.append((kept if pruned else 1.0, drops))
    return found


def without_effect(options: DataPruningOptions, epochs: int) -> list[str]:
    """Return a sentence for each thing that the options ask for and that no cycle does."""
    found = []
    cycles = -(-epochs // options.cycle)
    if options.policy != "full" and options.keep < 1 and PRUNED not in phases(options, epochs):
        found.append(
            f"data_pruning.policy={options.policy} prunes no cycle: the first and the last cycles "
            f"train on everything, and these are all {cycles}. Train longer, or lower "
            "data_pruning.warmup_cycles or data_pruning.anneal."
        )
    if options.time.variant != "none" and not any(
        drops for _, drops in kept_shares(options, epochs)
    ):
        found.append(
            f"data_pruning.time.variant={options.time.variant} drops no time: no pruned cycle of "
            f"the {cycles} cycles lies between time.start={options.time.start:g} and "
            f"time.end={options.time.end:g}. Train longer, or set these further apart."
        )
    return found


def planned_shares(options: DataPruningOptions, epochs: int) -> list[float]:
    """Return the share of the audio that each epoch trains on, as far as the options decide it.

    The share that a policy with an emergent budget keeps depends on the scores. Log-normal losses
    are assumed for it.

    Args:
        options: of data pruning.
        epochs: number of epochs of the whole training.
    """
    left = 1 - options.time.drop_ratio
    return [kept * (left if drops else 1.0) for kept, drops in kept_shares(options, epochs)]


def anneal_cycles(options: DataPruningOptions, cycles: int) -> int:
    """Return how many cycles at the end train on everything."""
    return math.floor(options.anneal * cycles + 0.5)
