"""The committed results of a comparison: its records, and the tables that are made of them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from asrprune.errors import UserError
from asrprune.files import read_json, write_text
from asrprune.studies.current import divide
from asrprune.studies.markup import about, missing, outdated_cells
from asrprune.studies.options import StudyOptions
from asrprune.studies.study import Cell, Record, Study

log = logging.getLogger(__name__)


def read_records(options: StudyOptions) -> list[Record]:
    """What was written before; nothing, if nothing was.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(options.results)
    return read_json(path) if path.is_file() else []


def save_records(
    study: Study, cells: Sequence[Cell], fresh: Sequence[Record], data: str | None = None
) -> list[Record]:
    """Put fresh records in place of older ones of the same cell and key; returns all.

    In the order of the grid, one a line; those that it would not leave today go.

    Args:
        data: the digest of the training data; None: that of most records.
    """
    records, outdated = divide(study, cells, [*read_records(study.options), *fresh], data)
    if outdated:
        log.warning("records made with other options or data are dropped: %s", ", ".join(outdated))
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write_text(study.options.results, f"[\n{lines}\n]\n")
    return records


def marks(options: StudyOptions) -> tuple[str, str]:
    """The lines around the part of the report that is written here."""
    name = Path(options.results).name
    return f"<!-- {name}: from here on written by asrprune compare -->", f"<!-- {name}: end -->"


def markdown(study: Study, cells: Sequence[Cell], records: Sequence[Record]) -> str:
    """Everything that is said of a comparison: a pure function of its options and records.

    Args:
        cells: all of the grid, for the order of the rows and what is missing.
        records: those that the grid would not leave today are named, not judged.
    """
    fresh, outdated = divide(study, cells, records)
    done = {study.cell_name(record) for record in fresh}
    parts = [about(study.options, fresh, len(done)) if fresh else "Nothing has been run."]
    if fresh and (left := [cell.name for cell in cells if cell.name not in done]):
        parts.append(missing(left, len(cells)))
    if outdated:
        parts.append(outdated_cells(outdated))
    if fresh:
        parts += study.sections(cells, fresh)
    return "\n\n".join(parts) + "\n"


def write_report(study: Study, cells: Sequence[Cell], records: Sequence[Record]) -> None:
    """Put the tables between the marks of the report, or with them at its end.

    Raises:
        UserError: only one of the marks is there.
    """
    path = Path(study.options.report)
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    begin, end = marks(study.options)
    part = f"{begin}\n\n{markdown(study, cells, records)}\n{end}"
    if begin not in text and end not in text:
        write_text(path, f"{text.rstrip()}\n\n## {study.options.title}\n\n{part}\n")
        return
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise UserError(f"{path}: of the two lines {begin} and {end}, one is missing or misplaced")
    write_text(path, before + part + after)
