"""Reads and writes the results of a comparison: its records, and its part of the report."""

import json
import logging
from collections.abc import Hashable, Sequence
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_text
from asrprune.compare.current import divide
from asrprune.compare.markup import about, missing, outdated_cells
from asrprune.compare.options import StudyOptions
from asrprune.compare.study import Cell, Record, Study

log = logging.getLogger(__name__)


def read_records(options: StudyOptions) -> list[Record]:
    """Return the records of the results file; none if there is no file.

    Raises:
        UserError: the file is damaged.
    """
    path = Path(options.results)
    return read_json(path) if path.is_file() else []


def save_records(
    study: Study, cells: Sequence[Cell], fresh: Sequence[Record], data: str | None = None
) -> list[Record]:
    """Write fresh records to the results file, where they replace records of the same cell and key.

    The file has one record a line, in the order of the grid. Outdated records
    (`asrprune.compare.current`), and those that no cell of the grid has, are moved to a file
    beside it.

    Args:
        study: the comparison.
        cells: all cells of the grid.
        fresh: the new records.
        data: the digest of the training data; None: the digest that most records have.

    Returns:
        All records of the file.
    """
    before = read_records(study.options)
    records, _ = divide(study, cells, [*before, *fresh], data)

    def name_of(record: Record) -> tuple[str, Hashable]:
        return study.cell_name(record), study.key(record)

    known = set(map(name_of, records))
    gone = [record for record in before if name_of(record) not in known]
    if gone:
        path = Path(study.options.results).with_suffix(".dropped.json")
        _write(path, [*(read_json(path) if path.is_file() else []), *gone])
        names = dict.fromkeys(study.cell_name(record) for record in gone)
        log.warning(
            "records of %s are moved to %s: they were made with other options or data, or their "
            "cells are not in the grid",
            ", ".join(names),
            path,
        )
    _write(Path(study.options.results), records)
    return records


def _write(path: Path, records: Sequence[Record]) -> None:
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write_text(path, f"[\n{lines}\n]\n")


def marks(options: StudyOptions) -> tuple[str, str]:
    """Return the lines before and after the part of the report that a comparison writes."""
    name = Path(options.results).name
    return f"<!-- {name}: from here on written by asrprune compare -->", f"<!-- {name}: end -->"


def markdown(study: Study, cells: Sequence[Cell], records: Sequence[Record]) -> str:
    """Return the report of a comparison, a pure function of its options and records.

    Args:
        study: the comparison.
        cells: all cells of the grid, for the order of the rows and the list of missing cells.
        records: the records. Outdated records are left out, and their cells are named.
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
    """Write the tables between the marks of the report.

    Without marks, the tables are added at the end of the report, between new marks.

    Raises:
        UserError: only one of the marks is there, or they are in the wrong order.
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
        raise UserError(
            f"{path}: one of the two lines {begin} and {end} is missing, or they are in the wrong "
            "order. Put both back around the tables"
        )
    write_text(path, before + part + after)
