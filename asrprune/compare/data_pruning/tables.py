"""The report of a comparison of data pruning, a pure function of its options and records."""

from collections.abc import Iterable, Sequence

from asrprune.base.markdown import NOTHING, table
from asrprune.compare.data_pruning.claims import judge
from asrprune.compare.data_pruning.grid import KeepCell
from asrprune.compare.data_pruning.options import DataStudyOptions
from asrprune.compare.data_pruning.plots import PLOTS
from asrprune.compare.data_pruning.summary import KeepRow, Summary, shown_keep
from asrprune.compare.drawing import plot_path
from asrprune.compare.fixed_costs import FIXED_COSTS, FIXED_COSTS_LEGEND, fixed_costs
from asrprune.compare.markup import image, of_set, percent, seconds, times
from asrprune.compare.pace import pace_legend
from asrprune.compare.rows import difference
from asrprune.compare.study import Record
from asrprune.compare.verdicts import INTERVALS, LEGEND, points, show

ERRORS = (
    *("method", "keep", "seeds", "WER", "ins", "del", "sub"),
    *("− full", "− random", "− fewer epochs", "detectable"),
)
COSTS = (
    *("method", "keep", "epochs", "audio, h", "saving", "visits", "steps", "training, s", "CPU, s"),
    *("speed-up", "CPU speed-up", "ceiling", "speed-up / ceiling"),
    *("turnover", "never kept / never seen"),
    *FIXED_COSTS,
)
CLAIMS = ("claim", "verdict", "measured", "detectable")


def short_table(
    study: DataStudyOptions, cells: Sequence[KeepCell], records: Sequence[Record]
) -> list[tuple[str, ...]]:
    """Return a small table of the first test set for the terminal, its header first.

    Args:
        study: options of the comparison.
        cells: all cells of the grid, for the order of the rows.
        records: the current records.
    """
    summary = Summary(records, study.test_sets[0])
    lines = [("method", "keep", "WER, %", "audio, h", "CPU, s", "audio saved", "CPU time saved")]
    for row in _rows(summary, cells):
        ceiling, speed = summary.ceiling(row), summary.speed_up(row, "cpu_seconds")
        lines.append(
            (
                *(row.method, shown_keep(summary, row), _rate(row), f"{row.mean('hours'):.2f}"),
                seconds(row.time("cpu_seconds")),
                *(percent(1 - 1 / ratio if ratio else None) for ratio in (ceiling, speed)),
            )
        )
    return lines


def sections(
    study: DataStudyOptions, cells: Sequence[KeepCell], records: Sequence[Record]
) -> list[str]:
    """Return the tables of each test set, a legend, and links to the plots.

    Args:
        study: options of the comparison.
        cells: all cells of the grid, for the order of the rows.
        records: the current records.
    """
    parts: list[str] = []
    for name in study.test_sets:
        summary = Summary(records, name)
        rows = _rows(summary, cells)
        if not rows:
            continue
        parts.append(of_set(study, name, next(iter(rows[0].records.values()))))
        parts.append(table(ERRORS, (_errors(summary, row) for row in rows)))
        if name == study.test_sets[0]:
            parts.append(table(COSTS, (_costs(summary, row) for row in rows)))
        if study.claims:
            verdicts = [(claim, judge(claim, summary, study.margin)) for claim in study.claims]
            lines = [
                (claim.claim, f"**{found.verdict}**", found.found, found.could_show)
                for claim, found in verdicts
            ]
            parts.append(table(CLAIMS, lines))
    parts.append(_legend(study, records))
    for axis, text in PLOTS.items():
        parts.append(image(study, text, plot_path(study.results, axis)))
    return parts


def _rows(summary: Summary, cells: Sequence[KeepCell]) -> list[KeepRow]:
    """Return the rows in the order of the grid."""
    order = dict.fromkeys((cell.method, cell.keep) for cell in cells)
    return [summary.rows[key] for key in order if key in summary.rows]


def _rate(row: KeepRow) -> str:
    return f"{100 * row.rate.value:.2f} [{100 * row.rate.low:.2f}, {100 * row.rate.high:.2f}]"


def _errors(summary: Summary, row: KeepRow) -> Iterable[str]:
    shorter = summary.compressed(row)
    against_full, against_random, against_shorter = (
        difference(row, other) for other in (summary.full, summary.random(row), shorter)
    )
    yield from (row.method, shown_keep(summary, row), str(len(row.records)))
    yield _rate(row)
    words = row.mean("words") or 1
    for kind in ("insertions", "deletions", "substitutions"):
        yield f"{100 * row.mean(kind) / words:.2f}"
    yield from (show(found[0]) if found else NOTHING for found in (against_full, against_random))
    hours = shorter.mean("hours") if shorter else 0
    named = f" ({shorter.method}, {hours:.2f} h)" if shorter else ""
    yield show(against_shorter[0]) + named if against_shorter else NOTHING
    yield points(against_full[0].could_show) if against_full else NOTHING


def _costs(summary: Summary, row: KeepRow) -> Iterable[str]:
    ceiling, speed = summary.ceiling(row), summary.speed_up(row)
    yield from (row.method, shown_keep(summary, row), f"{row.mean('epochs'):g}")
    yield f"{row.mean('hours'):.2f}"
    yield percent(1 - 1 / ceiling if ceiling else None)
    yield from (f"{row.mean(name):.0f}" for name in ("visits", "steps"))
    yield from map(seconds, (row.time(), row.time("cpu_seconds")))
    yield from map(times, (speed, summary.speed_up(row, "cpu_seconds"), ceiling))
    yield f"{speed / ceiling:.2f}" if speed and ceiling else NOTHING
    yield percent(row.mean("turnover"))
    yield " / ".join(percent(row.mean(name)) for name in ("never_kept", "never_visited"))
    yield from fixed_costs(row)


def _legend(study: DataStudyOptions, records: Sequence[Record]) -> str:
    return (
        f"{INTERVALS}. An interval of a single seed holds for that seed only. A difference uses "
        "the seeds that both trainings have. *Fewer epochs*: full data for fewer epochs, with its "
        "whole schedule. Each row is compared with the training whose audio is nearest, and the "
        "table names this training. *Ceiling*: audio of full data over the audio "
        "that was seen, after time dropping. *Saving*: the share of full data's audio that was "
        "not seen. *Training*: wall-clock time from the start of the process to its end, with "
        "scoring, planning, loading and saving. Times are of trainings that were never stopped."
        f"{pace_legend(records)} "
        "*Turnover*: the share of a keep-set that was not in the keep-set before. *Never kept*, "
        "*never seen*: the shares of the cuts that no pruned cycle kept, and that no cycle kept. "
        f"{FIXED_COSTS_LEGEND} *Parity*: the WER is at most {100 * study.margin:g} % (relative) "
        f"above full data's. {LEGEND} The table of errors shows the detectable difference from "
        "full data."
    )
