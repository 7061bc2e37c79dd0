"""The plot of a comparison of models of several languages: error rates and passes."""

from collections.abc import Sequence

from asrprune.base.figures import MARKS, save_figure
from asrprune.compare.drawing import error_bar, plot_path
from asrprune.compare.pathways.grid import cells_of
from asrprune.compare.pathways.options import ALL, PathwaysStudyOptions
from asrprune.compare.pathways.summary import Summary
from asrprune.compare.rows import mean
from asrprune.compare.study import Record

WER = "wer"
PLOTS = {WER: "WER of each language"}


def draw_plots(options: PathwaysStudyOptions, records: Sequence[Record]) -> None:
    """Write the plot. Equal records give equal files."""
    from matplotlib.figure import Figure

    summary = Summary(cells_of(options), records)
    methods = summary.methods
    figure = Figure(figsize=(11, 1.5 + 0.32 * len(methods)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    for place, language in enumerate([*summary.languages, ALL]):
        found = [
            (height, *error_bar(summary.rows[method, language]))
            for height, method in enumerate(methods)
            if (method, language) in summary.rows
        ]
        heights, middles, bars = zip(*found, strict=True) if found else ((), (), ())
        left.errorbar(
            middles,
            heights,
            xerr=list(zip(*bars, strict=True)) or None,
            fmt=MARKS[place % len(MARKS)],
            color="k" if language == ALL else f"C{place}",
            fillstyle="full" if language == ALL else "none",
            linewidth=1,
            capsize=2,
            label=language,
        )
    corpus = summary.corpus_hours()
    passes = [mean(summary.hours(method).values()) for method in methods]
    right.barh(range(len(methods)), [(hours or 0) / corpus for hours in passes], color="0.7")
    synthetic = ", synthetic speech" if options.synthetic else ""
    left.set_xlabel(f"WER (%){synthetic}; bars: range over seeds")
    left.set_xscale("log")
    left.set_yticks(range(len(methods)), methods)
    left.invert_yaxis()
    right.set_xlabel("passes with sources")
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both")
    left.legend(fontsize="small", ncols=len(summary.languages) + 1, loc="lower right")
    save_figure(figure, plot_path(options.results, WER))
