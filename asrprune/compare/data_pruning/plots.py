"""Plots of a comparison of data pruning: error rates over audio and time, and kept cuts."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from asrprune.base.figures import MARKS, save_figure
from asrprune.compare.data_pruning.options import FULL, DataStudyOptions
from asrprune.compare.data_pruning.summary import KeepRow, Summary, shown_keep
from asrprune.compare.drawing import error_bar, plot_path
from asrprune.compare.study import Record
from asrprune.report.data import DURATION

# value of a record -> title of the plot over this value
AXES = {
    "hours": "WER against hours of audio seen",
    "seconds": "WER against wall-clock seconds of training",
}
KEPT = "kept"
HIGHEST = 2.5  # error rates above so many times the lowest one are written at the upper edge
PLOTS = {**AXES, KEPT: "Share of the cuts that each cycle keeps, by duration and by group"}


def draw_plots(study: DataStudyOptions, records: Sequence[Record]) -> None:
    """Write all plots, for the first test set. Equal records give equal files."""
    _draw_rates(study, records)
    _draw_kept(study, records)


def _draw_rates(study: DataStudyOptions, records: Sequence[Record]) -> None:
    from matplotlib.figure import Figure

    summary = Summary(records, study.test_sets[0])
    highest: dict[str, float] = {}  # method -> its highest keep ratio
    for method, keep in summary.rows:
        highest[method] = max(keep, highest.get(method, 0.0))
    bars = [error_bar(row) for row in summary.rows.values()]
    limit = HIGHEST * min((middle for middle, _ in bars), default=0.0)
    edge = max((middle + above for middle, (_, above) in bars if middle <= limit), default=0.0)
    for axis, text in AXES.items():
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for row in summary.rows.values():
            x = row.time() if axis == "seconds" else row.mean(axis)
            if x is not None:
                place = list(highest).index(row.method)
                _draw(axes, summary, row, x, place, row.keep == highest[row.method], 1.05 * edge)
        axes.set_xlabel(text.removeprefix("WER against "))
        synthetic = ", synthetic speech" if study.synthetic else ""
        axes.set_ylabel(f"WER (%), {study.test_sets[0]}{synthetic}; bars: range over seeds")
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
        save_figure(figure, plot_path(study.results, axis))


def _draw_kept(study: DataStudyOptions, records: Sequence[Record]) -> None:
    """Draw a grid of plots: one column for each method, one row for each classification of cuts.

    A method is shown at its highest keep ratio, with its first seed.
    """
    from matplotlib.figure import Figure

    shown: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: (-record["keep"], record["seed"])):
        if record["policy"] != FULL:
            shown.setdefault(record["method"], record)
    methods = [name for name in dict.fromkeys(r["method"] for r in records) if name in shown]
    if not methods:
        return
    some = shown[methods[0]]["kept"]
    kinds = [kind for kind in some if len(some[kind]["labels"]) > 1]  # a single class is left out
    size = (2 + 1.6 * len(methods), 1 + 2 * len(kinds))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(kinds), len(methods), squeeze=False, sharey="row", sharex=True)
    for column, method in zip(grid.T, methods, strict=True):
        record = shown[method]
        column[0].set_title(f"{method}, {record['keep']:g}", fontsize="small")
        column[-1].set_xlabel("cycle", fontsize="small")
        for axes, kind in zip(column, kinds, strict=True):
            shares = np.array(record["kept"][kind]["shares"]).T  # (classes, cycles)
            if kind == DURATION:
                axes.imshow(shares, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="gray")
            else:
                for label, values in zip(record["kept"][kind]["labels"], shares, strict=True):
                    axes.plot(values, linewidth=1, label=label)
                axes.set_ylim(0, 1.03)
    for axes, kind in zip(grid[:, 0], kinds, strict=True):
        if kind == DURATION:
            axes.set_yticks(range(len(some[kind]["labels"])), some[kind]["labels"])
            axes.set_ylabel("shortest duration; white: all kept")
        else:
            axes.set_ylabel(f"share kept, by {kind}")
            axes.legend(fontsize="xx-small", loc="lower left", ncols=2)
    save_figure(figure, plot_path(study.results, KEPT))


def _draw(
    axes: Any, summary: Summary, row: KeepRow, x: float, place: int, filled: bool, edge: float
) -> None:
    """Draw the mark of a row. Each method has its own colour and shape.

    The mark is filled at the method's highest keep ratio. An error rate above ``edge`` (per cent)
    is written there, because the other rows would be hard to tell apart.
    """
    middle, bars = error_bar(row)
    color = f"C{place % 10}"
    label = f"{row.method}, keep {shown_keep(summary, row)}"
    if middle > edge:
        axes.plot(x, edge, "^", color=color, label=label)
        text = f"{middle:.0f} %"
        axes.annotate(text, (x, edge), (0, -14), textcoords="offset points", ha="center")
        return
    axes.errorbar(
        x,
        middle,
        yerr=[[bars[0]], [bars[1]]],
        fmt=MARKS[place % len(MARKS)],
        color=color,
        fillstyle="full" if filled else "none",
        capsize=3,
        label=label,
    )
