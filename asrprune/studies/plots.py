"""Plots of a comparison: error rate against audio seen, and against the time of the training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.files import atomic_path
from asrprune.studies.options import StudyOptions
from asrprune.studies.records import Record
from asrprune.studies.summary import Row, Summary

# axis -> in words
PLOTS = {
    "hours": "WER against hours of audio seen",
    "seconds": "WER against wall-clock seconds of training",
}
_MARKS = "osDv^<>pPX*hd8"


def plot_path(study: StudyOptions, axis: str) -> Path:
    """Beside the records: ``results/compare-hours.png``."""
    results = Path(study.results)
    return results.with_name(f"{results.stem}-{axis}.png")


def draw_plots(study: StudyOptions, records: Sequence[Record]) -> None:
    """Write both, for the first test set; equal records give equal files."""
    from matplotlib.figure import Figure

    summary = Summary(records, study.test_sets[0])
    highest: dict[str, float] = {}  # keep ratio of a method
    for method, keep in summary.rows:
        highest[method] = max(keep, highest.get(method, 0.0))
    for axis, text in PLOTS.items():
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for row in summary.rows.values():
            x = row.time() if axis == "seconds" else row.mean(axis)
            if x is not None:
                place = list(highest).index(row.method)
                _draw(axes, row, x, place, filled=row.keep == highest[row.method])
        axes.set_xlabel(text.removeprefix("WER against "))
        synthetic = ", synthetic speech" if study.synthetic else ""
        axes.set_ylabel(f"WER (%), {study.test_sets[0]}{synthetic}; bars: over seeds")
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
        with atomic_path(plot_path(study, axis)) as path:
            figure.savefig(path, dpi=120, metadata={"Software": None})


def _draw(axes: Any, row: Row, x: float, place: int, filled: bool) -> None:
    """A mark; a method has its colour and shape, filled at its highest keep ratio."""
    rates = [100 * record["errors"] / max(record["words"], 1) for record in row.records.values()]
    middle = sum(rates) / len(rates)
    axes.errorbar(
        x,
        middle,
        yerr=[[middle - min(rates)], [max(rates) - middle]],
        fmt=_MARKS[place % len(_MARKS)],
        color=f"C{place % 10}",
        fillstyle="full" if filled else "none",
        capsize=3,
        label=f"{row.method}, {row.keep:g}",
    )
