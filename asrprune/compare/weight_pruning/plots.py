"""The plots of a comparison of sparse models: error rate over size, and over time."""

from collections.abc import Callable, Iterable, Sequence

from asrprune.base.figures import MARKS, save_figure
from asrprune.compare.drawing import error_bar, plot_path
from asrprune.compare.rows import Row
from asrprune.compare.study import Record
from asrprune.compare.weight_pruning.options import WeightStudyOptions
from asrprune.compare.weight_pruning.summary import NetworkRow, Summary
from asrprune.export.in_turn import INT8

SIZE, TIME = "size", "time"
PLOTS = {SIZE: "WER against size", TIME: "WER in int8 against time"}


def is_drawn(plot: str, records: Iterable[Record]) -> bool:
    """Return whether records have the values of a plot: times are those of runs in sherpa-onnx."""
    return plot != TIME or any(record.get("runtime") for record in records)


def draw_plots(options: WeightStudyOptions, records: Sequence[Record]) -> None:
    """Write the plots, for the first test set. Equal records give equal files."""
    summary = Summary(records, options.test_sets[0])
    _draw(
        options,
        SIZE,
        summary,
        "size of the int8 files (MB)",
        lambda row: (row, row.mean("bytes") / 1e6),
    )
    if is_drawn(TIME, records):
        some = next(record["runtime"] for record in records if record.get("runtime"))
        label = f"milliseconds a {some[INT8]['per']}, int8 in sherpa-onnx, one thread"
        _draw(options, TIME, summary, label, _in_int8)


def _in_int8(row: NetworkRow) -> tuple[Row, float] | None:
    found = row.in_runtime(INT8)
    return found and (found, found.mean("milliseconds"))


def _draw(
    options: WeightStudyOptions,
    plot: str,
    summary: Summary,
    label: str,
    point: Callable[[NetworkRow], tuple[Row, float] | None],
) -> None:
    """Draw error rates.

    Args:
        options: options of the comparison.
        plot: one of `PLOTS`.
        summary: the rows of the test set.
        label: what the horizontal axis shows.
        point: returns the errors of a row and its value on the horizontal axis; None for rows that
            are left out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, method in enumerate(summary.methods):
        found = [point(row) for (name, _), row in summary.rows.items() if name == method]
        points = [(across, row) for row, across in filter(None, found)]
        if not points:
            continue
        points.sort(key=lambda pair: pair[0])
        middles, bars = zip(*(error_bar(row) for _, row in points), strict=True)
        axes.errorbar(
            [across for across, _ in points],
            middles,
            yerr=list(zip(*bars, strict=True)),
            fmt=f"{MARKS[number % len(MARKS)]}-",
            color=f"C{number % 10}",
            fillstyle="none",
            linewidth=1,
            capsize=3,
            label=method,
        )
    synthetic = ", synthetic speech" if options.synthetic else ""
    axes.set_xlabel(label)
    axes.set_ylabel(f"WER (%), {options.test_sets[0]}{synthetic}; bars: range over seeds")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    if axes.has_data():
        axes.legend(fontsize="small")
    save_figure(figure, plot_path(options.results, plot))
