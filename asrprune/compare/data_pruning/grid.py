"""The cells of a comparison of data pruning: its trainings and their overrides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from asrprune.base.errors import UserError
from asrprune.compare.data_pruning.options import COMPRESSED, CONTROLS, FULL, DataStudyOptions
from asrprune.compare.study import Cell
from asrprune.config import Config, load_config
from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions
from asrprune.data_pruning.phases import PRUNED, phases, planned_shares

EQUAL_AUDIO = 0.01  # share by which the audio of a control may differ from a method's audio


@dataclass(frozen=True, kw_only=True)
class KeepCell(Cell):
    """A training of a method at a keep ratio."""

    keep: float


def name_of(method: str, keep: float, seed: int) -> str:
    """Return the name of a cell, such as ``easy2hard-0.7-seed0``."""
    return f"{method}-{keep:g}-seed{seed}"


def cells_of(study: DataStudyOptions, more: Sequence[str] = ()) -> list[KeepCell]:
    """Return the cells of a grid and their controls, each once, sorted by seed.

    Args:
        study: options of the comparison.
        more: overrides for all trainings. They are applied after the comparison's own.

    Raises:
        UserError: the configuration refuses an override; or no number of epochs of full data has
            the audio of a keep ratio.
    """
    overrides = [*study.overrides, *more]
    base = load_config(study.config, overrides)
    places = {name: place for place, name in enumerate([*CONTROLS, *study.methods])}
    wanted = {
        (seed, 1.0 if method == FULL else keep, method)
        for part in study.grid
        for method in (*study.controls, *part.methods)
        for keep in part.keep
        for seed in part.seeds
    }
    cells = []
    for seed, keep, method in sorted(wanted, key=lambda cell: (cell[0], -cell[1], places[cell[2]])):
        own = [*overrides, f"seed={seed}", *(study.methods.get(method) or CONTROLS[method])]
        if method == COMPRESSED:
            own.append(f"training.epochs={compressed_epochs(base, keep)}")
        elif method != FULL:
            own.append(f"data_pruning.keep={keep:g}")
        # this finds a misspelt override before hours of training
        epochs = load_config(study.config, own).training.epochs
        cells.append(
            KeepCell(
                name=name_of(method, keep, seed),
                method=method,
                keep=keep,
                seed=seed,
                overrides=tuple(own),
                epochs=epochs,
            )
        )
    return cells


def compressed_epochs(config: Config, keep: float) -> int:
    """Return how many epochs of full data have as much audio as a policy that keeps ``keep``.

    Raises:
        UserError: no number of epochs has as much audio, within `EQUAL_AUDIO`.
    """
    exact = config.training.epochs * audio_share(config.data_pruning, config.training.epochs, keep)
    epochs = max(1, math.floor(exact + 0.5))
    if abs(epochs / exact - 1) > EQUAL_AUDIO:
        pruned = phases(config.data_pruning, config.training.epochs).count(PRUNED)
        raise UserError(
            f"keep={keep:g}: {config.training.epochs} epochs, {pruned} of them pruned, see the "
            f"audio of {exact:.2f} epochs. No whole number of epochs has as much audio, within "
            f"{100 * EQUAL_AUDIO:g} %. Choose training.epochs, data_pruning.warmup_cycles and "
            f"data_pruning.anneal such that keep times the pruned epochs is a whole number."
        )
    return epochs


def audio_share(options: DataPruningOptions, epochs: int, keep: float) -> float:
    """Return the share of the audio that is seen if pruned cycles keep the share ``keep`` of it.

    The other cycles keep all audio.
    """
    fixed = replace(options, policy="random", keep=keep, time=TimeDroppingOptions())
    return sum(planned_shares(fixed, epochs)) / epochs
