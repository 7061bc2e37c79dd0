"""Plots of a comparison of costs: error rates over CPU seconds, and over hours of audio."""

from collections.abc import Sequence

from asrprune.base.figures import MARKS, save_figure
from asrprune.compare.data_pruning.options import FULL
from asrprune.compare.drawing import error_bar, plot_path
from asrprune.compare.study import Record
from asrprune.compare.time_to_wer.options import AUDIO, CPU, TimeToWerOptions
from asrprune.compare.time_to_wer.summary import Summary

AXES = {CPU: "CPU time of the training (s)", AUDIO: "audio trained on (h)"}
PLOTS = {CPU: "WER over CPU time", AUDIO: "WER over hours of audio"}


def draw_plots(options: TimeToWerOptions, records: Sequence[Record]) -> None:
    """Write the plots, for the first test set. Equal records give equal files."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    summary = Summary(records, options.test_sets[0])
    for axis, label in AXES.items():
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for number, method in enumerate([FULL, *options.methods]):
            rows = [
                (cost, row)
                for row in summary.lengths(method)
                if (cost := row.cost(axis)) is not None
            ]
            if not rows:
                continue
            middles, bars = zip(*(error_bar(row) for _, row in rows), strict=True)
            axes.errorbar(
                [cost for cost, _ in rows],
                middles,
                yerr=list(zip(*bars, strict=True)),
                fmt=f"{MARKS[number % len(MARKS)]}-",
                color=f"C{number % 10}",
                linewidth=2 if method == FULL else 1,
                capsize=3,
                label=method,
            )
        synthetic = ", synthetic speech" if options.synthetic else ""
        axes.set_xlabel(label)
        axes.set_ylabel(f"WER (%), {options.test_sets[0]}{synthetic}; bars: range over seeds")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter(FormatStrFormatter("%g"))
            side.set_minor_formatter(FormatStrFormatter("%g"))
        axes.grid(alpha=0.3, which="both")
        if axes.has_data():
            axes.legend(fontsize="small")
        save_figure(figure, plot_path(options.results, axis))
