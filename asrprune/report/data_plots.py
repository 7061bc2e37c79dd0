"""Draw what data pruning did in a run: which cuts it kept, how often, and how scores changed."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.base.figures import save_figure
from asrprune.data_pruning.record import Record
from asrprune.report.data import (
    DURATION,
    SCORE_QUANTILES,
    duration_edges,
    kept_over_time,
    prunes,
    savings,
    scored,
)
from asrprune.report.svg import inline_svg

Axes = Any
INSIDE = {"fontsize": "x-small"}  # of a legend
OUTSIDE = {  # of a legend: beside the axes
    "loc": "center left", "bbox_to_anchor": (1, 0.5), "fontsize": "small", "handlelength": 1.2,
}  # fmt: skip


def draw(record: Record, path: Path) -> bool:
    """Draw the picture of a run, and return whether there was anything to draw.

    Kept cuts are drawn only if the run left out some cuts, and by group only if a grouping has
    several groups. Scores are drawn if they are known at the start of two cycles at least.

    Args:
        record: of the run.
        path: path of the picture, a PNG file.
    """
    from matplotlib.figure import Figure

    panels: list[Callable[[Axes, Record], None]] = []
    if prunes(record):
        panels += [_by_duration, _visits]
        if any(len(names) > 1 for _, names in record.groups.values()):
            panels.insert(1, _by_group)
    if len(scored(record)) > 1:
        panels.append(_scores)
    if not panels:
        return False
    rows, columns = -(-len(panels) // 2), min(2, len(panels))
    figure = Figure(figsize=(6 * columns, 4.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for panel, axes in zip(panels, grid, strict=False):
        panel(axes, record)
    for axes in list(grid)[len(panels) :]:
        axes.remove()
    save_figure(figure, path)
    return True


def pictures(record: Record) -> dict[str, str]:
    """Return the pictures of a run for a page, as far as there is anything to draw.

    Returns:
        Name -> text of an ``<svg>`` element. The names are ``savings``, ``visits``, ``scores``, and
        those of `kept_over_time`: the durations and each grouping that has several groups.
    """
    panels: dict[str, Callable[[Axes, Record], None]] = {}
    if prunes(record):
        panels = {"savings": _savings, "visits": _visits, DURATION: _by_duration}
        for name, (_, names) in record.groups.items():
            if len(names) > 1:
                panels[name] = partial(_by_group, only=name)
    if len(scored(record)) > 1:
        panels["scores"] = partial(_scores, legend=OUTSIDE)
    return {
        name: inline_svg(partial(_untitled, panel, record), f"picture-{number}", (5.6, 3.4))
        for number, (name, panel) in enumerate(panels.items())
    }


def _untitled(panel: Callable[[Axes, Record], None], record: Record, axes: Axes) -> None:
    """Draw a panel without its title, which the page has as a caption."""
    panel(axes, record)
    axes.set_title("")


def _savings(axes: Axes, record: Record) -> None:
    saved = savings(record)
    cycles = [cycle.cycle for cycle in record.planned]
    axes.bar(cycles, saved.trained, label="audio trained on")
    axes.plot(cycles, saved.asked, "_", color="C1", ms=14, mew=3, label="keep ratio")
    axes.set(xlabel="cycle", ylabel="share of the audio", title="Share of the audio trained on")
    axes.set_ylim(0, 1.02)
    axes.legend(**OUTSIDE)


def _by_duration(axes: Axes, record: Record) -> None:
    labels, shares = kept_over_time(record)[DURATION]
    image = axes.imshow(
        shares.T, aspect="auto", origin="lower", vmin=0, vmax=1, interpolation="nearest"
    )
    edges = [record.duration.min(), *duration_edges(record), record.duration.max()]
    axes.set_yticks(np.arange(len(edges)) - 0.5, [f"{edge:.1f}" for edge in edges])
    axes.set(xlabel="cycle", ylabel="duration (s)", title="Share of cuts kept, by duration")
    axes.figure.colorbar(image, ax=axes, label="share of cuts kept")


def _by_group(axes: Axes, record: Record, only: str = "") -> None:
    """Draw the share kept of each group: of one grouping, or of all that have several groups."""
    by_class = kept_over_time(record)
    del by_class[DURATION]
    for name, (labels, shares) in by_class.items():
        if name == only or (not only and len(labels) > 1):
            for label, values in zip(labels, shares.T, strict=True):
                axes.plot(values, label=label if only else f"{name} {label}")
    title = f"Share kept, by {only or 'group'}"
    axes.set(xlabel="cycle", ylabel="share of cuts kept", title=title)
    axes.set_ylim(0, 1.02)
    axes.legend(**(OUTSIDE if only else INSIDE))


def _visits(axes: Axes, record: Record) -> None:
    visits = np.bincount(record.visits)
    axes.bar(np.arange(len(visits)), visits)
    axes.set(xlabel="cycles that kept a cut", ylabel="number of cuts", title="Visits")


def _scores(axes: Axes, record: Record, legend: dict[str, Any] = INSIDE) -> None:
    cycles = scored(record)
    values = np.array([np.nanquantile(cycle.typical, SCORE_QUANTILES) for cycle in cycles])
    for share, line in zip(SCORE_QUANTILES, values.T, strict=True):
        axes.plot([cycle.cycle for cycle in cycles], line, label=f"{100 * share:g} %")
    axes.set(
        xlabel="cycle",
        ylabel="score (as data_pruning.score)",
        title="Quantiles of the typical scores, over the utterances",
    )
    axes.legend(**legend)
