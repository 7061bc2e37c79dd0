"""The records of a finished cell: errors by speaker, and the data that the training saw."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.compare.data_pruning.grid import KeepCell
from asrprune.compare.data_pruning.options import DataStudyOptions
from asrprune.compare.measured import (
    errors_of_set,
    how_it_is_made,
    read_metrics,
    what_does_not_shrink,
    what_it_saw,
    what_it_took,
)
from asrprune.compare.study import TRAIN, Cell, Record
from asrprune.config import Config, load_config
from asrprune.data_pruning.phases import PRUNED, phases
from asrprune.data_pruning.record import read_record
from asrprune.report.data import kept_over_time


def how_it_is_pruned(options: DataStudyOptions, cell: Cell, folder: Path) -> Record:
    """Return the values of a record that follow from the grid, options of data pruning included."""
    pruning = load_config(options.config, cell.overrides).data_pruning
    made = how_it_is_made(options, cell, folder)
    return made | {"data_pruning": dataclasses.asdict(pruning)}


def make_records(
    options: DataStudyOptions,
    cell: Cell,
    config: Config,
    folder: Path,
    progress: dict[str, dict[str, Any]],
) -> list[Record]:
    """Return the records of a cell, one for each test set.

    The records differ in their errors only. All other values describe the training.

    Args:
        options: options of the comparison.
        cell: the cell.
        config: the configuration of the training.
        folder: the folder of the cell.
        progress: for each step, the time and attempts it took (`asrprune.compare.cell`).

    Raises:
        UserError: a file of the cell is missing or damaged.
    """
    others = sum(took["seconds"] for step, took in progress.items() if step != TRAIN)
    about = {
        "method": cell.method,
        "policy": config.data_pruning.policy,
        # full data for fewer epochs: the keep ratio that leaves as much audio
        "keep": cell.keep if isinstance(cell, KeepCell) else config.data_pruning.keep,
        "seed": cell.seed,
        **how_it_is_pruned(options, cell, folder),
        **audio_and_keep_sets(folder, config),
        "kept": who_was_kept(folder),
        **what_it_took(progress[TRAIN]),
        "other_seconds": round(others, 1),
        "synthetic": options.synthetic,
    }
    return [
        {"set": name, **errors_of_set(options, config, folder, name), **about}
        for name in options.test_sets
    ]


def who_was_kept(folder: Path) -> dict[str, dict[str, Any]]:
    """Return for each classification of cuts its ``labels``, and the ``shares`` that were kept.

    The shares have one row for each cycle and one column for each label.
    """
    return {
        name: {"labels": labels, "shares": shares.round(3).tolist()}
        for name, (labels, shares) in kept_over_time(read_record(folder / "pruning")).items()
    }


def audio_and_keep_sets(folder: Path, config: Config) -> Record:
    """Return the audio, visits and steps of a whole training, and changes of its keep-sets.

    Returns:
        Among others, ``hours`` of audio after time dropping and ``hours_before_dropping``.
        ``turnover``: the mean share of a pruned cycle's keep-set that was not in the keep-set of
        the pruned cycle before. ``never_kept``: the share of the cuts that no pruned cycle kept.
        ``never_visited``: the share of the cuts that no cycle kept. ``visits_of_a_cut``:
        ``[minimum, 5 %, median, 95 %, maximum]`` over the cuts.

    Raises:
        UserError: the folder has no metrics of the last epoch.
    """
    from asrprune.training.checkpoint import load_checkpoint

    seen = what_it_saw(folder, config)
    lines = read_metrics(folder / "log" / "metrics.jsonl")
    state = load_checkpoint(folder / f"epoch-{config.training.epochs}.pt")
    return {
        "hours": round(seen["seconds_left"] / 3600, 4),
        "hours_before_dropping": round(seen["seconds"] / 3600, 4),
        "visits": seen["cuts"],
        "clamped": seen["clamped"],
        **what_does_not_shrink(folder, seen),
        "steps": state["position"]["step"],
        **_keep_sets(lines, state["pruning"], config),
        "versions": state["versions"],
    }


def _keep_sets(lines: list[Record], pruning: dict[str, Any] | None, config: Config) -> Record:
    epochs = config.training.epochs
    nothing = {"turnover": None, "never_kept": 0.0, "never_visited": 0.0}
    if pruning is None:
        return {**nothing, "visits_of_a_cut": [epochs] * 5}
    cycle = config.data_pruning.cycle
    of_cycles = phases(config.data_pruning, epochs)[::cycle]
    visits = pruning["history"]["visits"].numpy().view(np.uint16).astype(int)
    kept = np.unpackbits(pruning["plan"]["keep"].numpy(), count=len(visits)).astype(int)
    visits += kept  # the history lacks the last cycle, because no cycle follows it
    full = sum(phase != PRUNED for phase in of_cycles)
    # a training that continues at the start of an epoch writes the line of the cycle again
    by_step = {line["step"]: line for line in lines if line["kind"] == "pruning"}
    turnover = [
        line["turnover"]
        for line, before, phase in zip(
            [by_step[step] for step in sorted(by_step)][::cycle][1:],
            of_cycles[:-1],
            of_cycles[1:],
            strict=False,
        )
        if before == phase == PRUNED and "turnover" in line
    ]
    shares = {
        "turnover": round(float(np.mean(turnover)), 4) if turnover else None,
        "never_kept": round(float(np.mean(visits <= full)), 4) if full < len(of_cycles) else 0.0,
        "never_visited": round(float(np.mean(visits == 0)), 4),
    }
    quantiles = np.percentile(visits, [0, 5, 50, 95, 100], method="nearest")
    return {**shares, "visits_of_a_cut": quantiles.astype(int).tolist()}
