"""The report of a comparison of costs, a pure function of its options and records."""

from collections.abc import Collection, Iterable, Sequence

from asrprune.base.markdown import NOTHING, table
from asrprune.compare.data_pruning.options import FULL
from asrprune.compare.drawing import plot_path
from asrprune.compare.fixed_costs import FIXED_COSTS, FIXED_COSTS_LEGEND, fixed_costs
from asrprune.compare.markup import image, of_set, seconds
from asrprune.compare.pace import pace_legend
from asrprune.compare.rows import RatioEstimate
from asrprune.compare.study import Cell, Record
from asrprune.compare.time_to_wer.options import MEASURES, CostClaimOptions, TimeToWerOptions
from asrprune.compare.time_to_wer.plots import PLOTS
from asrprune.compare.time_to_wer.summary import LengthRow, Summary
from asrprune.compare.verdicts import (
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    LEAST_SEEDS,
    Verdict,
    count_seeds,
)

ROWS = (
    *("method", "epochs", "seeds", "WER", "audio, h", "steps", "training, s", "CPU, s"),
    *FIXED_COSTS,
)
CLAIMS = ("claim", "verdict", "measured", "detectable")
LEGEND = (
    "Each length of training is a training of its own, with its whole schedule. *At the error rate "
    "of*: full data reaches this error rate after so many epochs. The ratio is full data's cost "
    "over the method's cost at this error rate. Above 1 the method is cheaper. Error rates are "
    "made monotone: a longer training is not worse. The logarithm of the cost is interpolated over "
    "the logarithm of the error rate. Nothing is extrapolated. *<*: the method does not reach the "
    "error rate in its longest training. *>*: the method's shortest training is better than the "
    "error rate. The interval of such a ratio may have one end only. Intervals have a coverage of"
    " 95 %. Speakers and seeds are resampled, with the same draws for all curves. Intervals are "
    "widened where the spread comes from few seeds "
    f"(Student's t). {FIXED_COSTS_LEGEND} "
    "Times are of trainings that were never stopped.{} "
    "*Detectable*: the smallest factor between the true ratio and the claimed ratio that would be "
    "found 4 times out of 5."
)


def sections(
    options: TimeToWerOptions, cells: Sequence[Cell], records: Sequence[Record]
) -> list[str]:
    """Return the tables of each test set, a legend, and links to the plots.

    Args:
        options: options of the comparison.
        cells: all cells of the grid, for the order of the methods.
        records: the current records.
    """
    parts: list[str] = []
    methods = sorted({cell.method for cell in cells}, key=[FULL, *options.methods].index)
    for name in options.test_sets:
        summary = Summary(records, name)
        rows = [row for method in methods for row in summary.lengths(method)]
        if not rows:
            continue
        parts.append(of_set(options, name, next(iter(rows[0].records.values()))))
        parts.append(table(ROWS, map(_row, rows)))
        for measure, text in MEASURES.items():
            lines = list(_ratios(summary, methods, measure))
            if lines:
                of_full = summary.lengths(FULL)
                head = [f"{text}: at the error rate of"]
                head += [f"{row.epochs} epochs ({_percent(row)})" for row in of_full]
                parts.append(table(head, lines))
        if options.claims:
            gone = _incomplete(cells, summary)
            verdicts = [(claim, judge(claim, summary, gone)) for claim in options.claims]
            lines = [
                (claim.claim, f"**{found.verdict}**", found.found, found.could_show)
                for claim, found in verdicts
            ]
            parts.append(table(CLAIMS, lines))
    parts.append(LEGEND.format(pace_legend(records)))
    for axis, text in PLOTS.items():
        parts.append(image(options, text, plot_path(options.results, axis)))
    return parts


def judge(claim: CostClaimOptions, summary: Summary, incomplete: Collection[str] = ()) -> Verdict:
    """Judge whether full data costs at least ``by`` times as much as the method.

    Args:
        claim: the claim.
        summary: the rows of the test set.
        incomplete: methods that have not been trained for all lengths and seeds of the grid. The
            verdict on them is inconclusive, and so it is if full data is among them.
    """
    ratios = summary.ratios(claim.method, claim.measure)
    if not ratios:
        return Verdict(INCONCLUSIVE, "not run")
    epochs = claim.epochs or max(ratios)
    if epochs not in ratios:
        return Verdict(INCONCLUSIVE, "not run")
    ratio, seeds = ratios[epochs], len(summary.seeds(claim.method))
    found = (
        f"{show(ratio, summary, claim.method, claim.measure, epochs)} as many "
        f"{MEASURES[claim.measure]} for full data, at the error rate of its {epochs} epochs"
    )
    if seeds < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{found} ({count_seeds(seeds)} only)")
    if {claim.method, FULL} & set(incomplete):
        return Verdict(INCONCLUSIVE, f"{found} (some trainings are missing)")
    verdict = INCONCLUSIVE
    if ratio.low >= claim.by:
        verdict = HOLDS
    elif ratio.high < claim.by:
        verdict = CONTRADICTED
    could_show = NOTHING
    if ratio.could_show != float("inf"):
        could_show = f"factor {ratio.could_show:.2f}"
    return Verdict(verdict, found, could_show)


def _incomplete(cells: Sequence[Cell], summary: Summary) -> set[str]:
    """Return the methods of the grid that lack a training."""
    return {
        cell.method
        for cell in cells
        if (row := summary.rows.get((cell.method, cell.epochs))) is None
        or cell.seed not in row.records
    }


def show(ratio: RatioEstimate, summary: Summary, method: str, measure: str, epochs: int) -> str:
    """Return a ratio and its interval as text.

    Where the method does not reach the error rate, or is better from the start, the text states the
    bound of the ratio that the longest or the shortest training gives.
    """
    rows = summary.lengths(method)
    full = summary.rows[FULL, epochs].cost(measure)
    low = "–" if ratio.low == 0 else f"{ratio.low:.2f}"
    high = "–" if ratio.high == float("inf") else f"{ratio.high:.2f}"
    value = f"{ratio.value:.2f}x"
    if ratio.value == 0:
        value = f"< {full / rows[-1].cost(measure):.2f}x"
    if ratio.value == float("inf"):
        value = f"> {full / rows[0].cost(measure):.2f}x"
    return f"{value} [{low}, {high}]"


def _ratios(summary: Summary, methods: Sequence[str], measure: str) -> Iterable[Iterable[str]]:
    """Yield a line of ratios for each method that has some."""
    for method in methods:
        if method != FULL and (found := summary.ratios(method, measure)):
            shown = (show(found[e], summary, method, measure, e) for e in found)
            yield (method, *shown)


def _row(row: LengthRow) -> Iterable[str]:
    yield from (row.method, str(row.epochs), str(len(row.records)))
    rate = row.rate
    yield f"{100 * rate.value:.2f} [{100 * rate.low:.2f}, {100 * rate.high:.2f}]"
    yield from (f"{row.mean('hours'):.2f}", f"{row.mean('steps'):.0f}")
    yield from map(seconds, (row.time(), row.time("cpu_seconds")))
    yield from fixed_costs(row)


def _percent(row: LengthRow) -> str:
    return f"{100 * row.rate.value:.2f} %"
