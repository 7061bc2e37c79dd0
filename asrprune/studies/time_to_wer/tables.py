"""A comparison of costs at equal error rates as Markdown: a pure function of its records."""

from collections.abc import Iterable, Sequence

from asrprune.studies.data_pruning.options import FULL
from asrprune.studies.drawing import plot_path
from asrprune.studies.fixed_costs import FIXED_COSTS, FIXED_COSTS_LEGEND, fixed_costs
from asrprune.studies.markup import image, of_set, seconds, table
from asrprune.studies.rows import RatioEstimate
from asrprune.studies.study import Cell, Record
from asrprune.studies.time_to_wer.options import MEASURES, CostClaimOptions, TimeToWerOptions
from asrprune.studies.time_to_wer.plots import PLOTS
from asrprune.studies.time_to_wer.summary import LengthRow, Summary
from asrprune.studies.verdicts import (
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
CLAIMS = ("claim", "verdict", "measured", "could show")
LEGEND = (
    "Each length of training is a training of its own, with its whole schedule. *At the error rate "
    "of*: full data's cost over the method's cost at the same error rate, which full data has "
    "after so many epochs. Above 1 the method is cheaper. Error rates are made monotone (a longer "
    "training is not worse) and interpolated, logarithm against logarithm; nothing is "
    "extrapolated: *<* is a method that does not come so far in its longest training, *>* one that "
    "is further after its shortest. Intervals are of 95 %, over draws of speakers and seeds that "
    "are the same for all curves, and stretched where few seeds make up the spread (Student). "
    f"{FIXED_COSTS_LEGEND} Times are of trainings that were never stopped. *Could show*: the least "
    "factor between the true ratio and the claim's that would be found 4 times out of 5."
)


def sections(
    options: TimeToWerOptions, cells: Sequence[Cell], records: Sequence[Record]
) -> list[str]:
    """Return what is said of a comparison: of each test set its tables; a legend; plots.

    Args:
        options: of the comparison.
        cells: all of the grid, for the order of the methods.
        records: what was measured.
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
            verdicts = [(claim, judge(claim, summary)) for claim in options.claims]
            lines = [
                (claim.claim, f"**{found.verdict}**", found.found, found.could_show)
                for claim, found in verdicts
            ]
            parts.append(table(CLAIMS, lines))
    parts.append(LEGEND)
    for axis, text in PLOTS.items():
        parts.append(image(options, text, plot_path(options.results, axis)))
    return parts


def judge(claim: CostClaimOptions, summary: Summary) -> Verdict:
    """Judge whether a method costs ``by`` times less than full data."""
    ratios = summary.ratios(claim.method, claim.measure)
    if not ratios:
        return Verdict(INCONCLUSIVE, "not run")
    epochs = claim.epochs or max(ratios)
    ratio, seeds = ratios[epochs], len(summary.seeds(claim.method))
    found = (
        f"{show(ratio, summary, claim.method, claim.measure, epochs)} of {MEASURES[claim.measure]}"
    )
    found += f" at the error rate of {epochs} epochs of full data"
    if seeds < LEAST_SEEDS:
        return Verdict(INCONCLUSIVE, f"{found} ({count_seeds(seeds)} only)")
    verdict = INCONCLUSIVE
    if ratio.low >= claim.by:
        verdict = HOLDS
    elif ratio.high < claim.by:
        verdict = CONTRADICTED
    return Verdict(verdict, found, f"factor {ratio.could_show:.2f}")


def show(ratio: RatioEstimate, summary: Summary, method: str, measure: str, epochs: int) -> str:
    """Return a ratio and its interval; the nearest that can be said where there is none."""
    rows = summary.lengths(method)
    full = summary.rows[FULL, epochs].mean(measure)
    if ratio.value == 0:
        return f"< {full / rows[-1].mean(measure):.2f}x"
    if ratio.value == float("inf"):
        return f"> {full / rows[0].mean(measure):.2f}x"
    low = "–" if ratio.low == 0 else f"{ratio.low:.2f}"
    high = "–" if ratio.high == float("inf") else f"{ratio.high:.2f}"
    return f"{ratio.value:.2f}x [{low}, {high}]"


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
