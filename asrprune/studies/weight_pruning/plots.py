"""The plot of a comparison of sparse models: error rate over size."""

from collections.abc import Sequence

from asrprune.studies.drawing import MARKS, error_bar, plot_path, save_figure
from asrprune.studies.study import Record
from asrprune.studies.weight_pruning.options import WeightStudyOptions
from asrprune.studies.weight_pruning.summary import Summary

SIZE = "size"
PLOTS = {SIZE: "WER against size"}


def draw_plots(options: WeightStudyOptions, records: Sequence[Record]) -> None:
    """Write the plot, for the first test set. Equal records give equal files."""
    from matplotlib.figure import Figure

    summary = Summary(records, options.test_sets[0])
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for place, method in enumerate(summary.methods):
        rows = [row for (name, _), row in summary.rows.items() if name == method]
        rows.sort(key=lambda row: row.mean("bytes"))
        middles, bars = zip(*map(error_bar, rows), strict=True)
        axes.errorbar(
            [row.mean("bytes") / 1e6 for row in rows],
            middles,
            yerr=list(zip(*bars, strict=True)),
            fmt=f"{MARKS[place % len(MARKS)]}-",
            color=f"C{place % 10}",
            fillstyle="none",
            linewidth=1,
            capsize=3,
            label=method,
        )
    synthetic = ", synthetic speech" if options.synthetic else ""
    axes.set_xlabel("size of the int8 files (MB)")
    axes.set_ylabel(f"WER (%), {options.test_sets[0]}{synthetic}; bars: range over seeds")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    if axes.has_data():
        axes.legend(fontsize="small")
    save_figure(figure, plot_path(options.results, SIZE))
