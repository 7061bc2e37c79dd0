"""Markdown for the reports of all types of comparison."""

from collections.abc import Sequence
from pathlib import PurePath

from asrprune.base.markdown import NOTHING
from asrprune.compare.options import StudyOptions
from asrprune.compare.pace import machine_of
from asrprune.compare.study import Record


def about(options: StudyOptions, records: Sequence[Record], trainings: int) -> str:
    """Return a sentence on the number of trainings, the machines, the packages and the commits."""
    last = records[-1]
    machines = sorted({f"{r['machine']['system']}, {r['machine']['cores']} cores" for r in records})
    count = len(set(map(machine_of, records)))
    several = f"{count} machines: " if count > 1 else ""
    versions = {name: last["versions"].get(name) for name in ("python", "torch", "lhotse")}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    speech = "**Synthetic speech.** " if options.synthetic else ""
    code = sorted({record["git"] for record in records})
    commits = f"; commits {' and '.join(code)}" if len(code) > 1 else ""
    where = several + " and ".join(machines)
    return f"{speech}{trainings} trainings on {where}; {packages}{commits}."


def missing(names: Sequence[str], cells: int) -> str:
    """Return a sentence that names the cells that have not been run."""
    return f"**{len(names)} of {cells} cells are missing**: {', '.join(names)}."


def outdated_cells(names: Sequence[str]) -> str:
    """Return a sentence that names the cells whose records are left out of the report."""
    return (
        "**Left out, because their records were made with other options or data than today's**: "
        f"{', '.join(names)}."
    )


def of_set(options: StudyOptions, name: str, record: Record) -> str:
    """Return the line above the tables of a test set: size, speakers and decoding method."""
    return (
        f"{name}{' (synthetic)' if options.synthetic else ''}: {record['words']} words of "
        f"{len(record['speakers'])} speakers, decoded by {options.decoding_method}. Error rates in "
        "per cent:"
    )


def image(options: StudyOptions, text: str, path: PurePath) -> str:
    """Return a Markdown link to a plot. The path is relative to the report."""
    folder = PurePath(options.report).parent
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"![{text}]({shown.as_posix()})"


def percent(share: float | None) -> str:
    """Return a share as text, in whole per cent."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def seconds(value: float | None) -> str:
    """Return a time as text, in whole seconds."""
    return NOTHING if value is None else f"{value:.0f}"


def times(value: float | None) -> str:
    """Return a ratio as text, such as ``1.25x``."""
    return NOTHING if value is None else f"{value:.2f}x"
