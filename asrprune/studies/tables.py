"""A comparison as Markdown: a pure function of its options and its records."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from asrprune.scoring.clusters import Estimate
from asrprune.studies.claims import judge, show
from asrprune.studies.grid import Cell
from asrprune.studies.options import StudyOptions
from asrprune.studies.plots import PLOTS, plot_path
from asrprune.studies.records import Record
from asrprune.studies.summary import Row, Summary

ERRORS = (
    *("method", "keep", "seeds", "WER", "ins", "del", "sub"),
    *("− full", "− random", "− compressed full", "could show"),
)
COSTS = (
    *("method", "keep", "epochs", "audio, h", "saving", "visits", "steps", "training, s", "CPU, s"),
    *("speed-up", "of CPU", "ceiling", "speed-up / ceiling", "turnover", "never kept / seen"),
)
CLAIMS = ("claim", "verdict", "measured", "could show")
NOTHING = "–"


def markdown(study: StudyOptions, cells: Sequence[Cell], records: Sequence[Record]) -> str:
    """Everything that is said of a comparison, between the marks of its report.

    :param cells: all of the grid, for the order of the rows and what is missing.
    """
    done = {(record["method"], record["keep"], record["seed"]) for record in records}
    missing = [cell.name for cell in cells if cell.key not in done]
    parts = [_about(study, records)]
    if missing:
        parts.append(f"**{len(missing)} of {len(cells)} cells are missing**: {', '.join(missing)}.")
    order = list(dict.fromkeys((cell.method, cell.keep) for cell in cells))
    for name in study.test_sets:
        summary = Summary(records, name)
        rows = [summary.rows[key] for key in order if key in summary.rows]
        if not rows:
            continue
        parts.append(_set(study, name, rows))
        parts.append(_table(ERRORS, (_errors(summary, row) for row in rows)))
        if name == study.test_sets[0]:
            parts.append(_table(COSTS, (_costs(summary, row) for row in rows)))
        if study.claims:
            verdicts = [(claim, judge(claim, summary, study.margin)) for claim in study.claims]
            lines = [
                (claim.claim, f"**{found.verdict}**", found.found, found.could_show)
                for claim, found in verdicts
            ]
            parts.append(_table(CLAIMS, lines))
    parts.append(_legend(study))
    folder = PurePath(study.report).parent
    for axis, text in PLOTS.items():
        path = plot_path(study, axis)
        parts.append(f"![{text}]({_relative(path, folder)})")
    return "\n\n".join(parts) + "\n"


def _about(study: StudyOptions, records: Sequence[Record]) -> str:
    if not records:
        return "Nothing has been run."
    last = records[-1]
    machines = sorted({f"{r['machine']['system']}, {r['machine']['cores']} cores" for r in records})
    versions = {name: last["versions"].get(name) for name in ("python", "torch", "lhotse")}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    speech = "**Synthetic speech.** " if study.synthetic else ""
    return f"{speech}{len(records)} trainings on {' and '.join(machines)}; {packages}."


def _set(study: StudyOptions, name: str, rows: Sequence[Row]) -> str:
    record = next(iter(rows[0].records.values()))
    return (
        f"{name}{' (synthetic)' if study.synthetic else ''}, {record['words']} words of "
        f"{len(record['speakers'])} speakers, {study.decoding_method}; in per cent:"
    )


def _errors(summary: Summary, row: Row) -> Iterable[str]:
    estimates = [
        summary.difference(row, other)
        for other in (summary.full, summary.random(row), summary.compressed(row))
    ]
    against_full = estimates[0]
    yield from (row.method, f"{row.keep:g}", str(len(row.records)))
    yield f"{100 * row.rate.value:.2f} [{100 * row.rate.low:.2f}, {100 * row.rate.high:.2f}]"
    words = row.mean("words") or 1
    for kind in ("insertions", "deletions", "substitutions"):
        yield f"{100 * row.mean(kind) / words:.2f}"
    yield from (show(found[0]) if found else NOTHING for found in estimates)
    yield _points(against_full[0]) if against_full else NOTHING


def _costs(summary: Summary, row: Row) -> Iterable[str]:
    ceiling, speed = summary.ceiling(row), summary.speed_up(row)
    yield from (row.method, f"{row.keep:g}", f"{row.mean('epochs'):g}")
    yield f"{row.mean('hours'):.2f}"
    yield _percent(1 - 1 / ceiling if ceiling else None)
    yield from (f"{row.mean(name):.0f}" for name in ("visits", "steps"))
    for time in (row.time(), row.time("cpu_seconds")):
        yield NOTHING if time is None else f"{time:.0f}"
    yield from map(_times, (speed, summary.speed_up(row, "cpu_seconds"), ceiling))
    yield f"{speed / ceiling:.2f}" if speed and ceiling else NOTHING
    yield _percent(row.mean("turnover"))
    yield " / ".join(_percent(row.mean(name)) for name in ("never_kept", "never_visited"))


def _legend(study: StudyOptions) -> str:
    return (
        "Intervals are of 95 %, resampled by speaker and by seed, the same for both sides of a "
        "difference, and stretched where few seeds make up the spread (Student); of one seed they "
        "hold for that seed only. *Could show*: the least true "
        "difference (from full data) that would be found 4 times out of 5. *Compressed full*: full "
        "data for fewer epochs, with the whole schedule; the row whose audio is nearest. *Saving*, "
        "*ceiling*: audio of full data against the audio that was seen, after time dropping. "
        "*Training*: wall-clock from the start of the process to its end, scoring, planning, "
        "loading and saving included; times are of trainings that were never stopped. "
        "*Turnover*: share of a keep-set that was not in the one before. *Never kept*, *seen*: "
        "share of the cuts that no pruned cycle kept, and that no cycle did. Parity: within "
        f"{100 * study.margin:g} % of full data's WER."
    )


def _table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _relative(path: PurePath, folder: PurePath) -> str:
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


def _points(estimate: Estimate) -> str:
    return f"{100 * estimate.could_show:.2f}"


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def _times(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}x"
