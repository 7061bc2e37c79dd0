"""The committed results of a comparison: its records, and the tables that are made of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from asrprune.errors import UserError
from asrprune.files import read_json, write_text
from asrprune.studies.grid import Cell
from asrprune.studies.options import StudyOptions
from asrprune.studies.records import Record
from asrprune.studies.tables import markdown


def read_records(study: StudyOptions) -> list[Record]:
    """What was written before; nothing, if nothing was.

    :raises UserError: the file is damaged.
    """
    path = Path(study.results)
    return read_json(path) if path.is_file() else []


def save_records(
    study: StudyOptions, cells: Sequence[Cell], fresh: Sequence[Record]
) -> list[Record]:
    """Put fresh records in place of older ones of the same cell and test set; returns all.

    In the order of the grid, one a line; those that it no longer has go.
    """
    order = {cell.key: place for place, cell in enumerate(cells)}
    merged = {_key(record): record for record in (*read_records(study), *fresh)}
    records = [
        record
        for key, record in merged.items()
        if key[:3] in order and record["set"] in study.test_sets
    ]
    records.sort(key=lambda record: (order[_key(record)[:3]], study.test_sets.index(record["set"])))
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    write_text(study.results, f"[\n{lines}\n]\n")
    return records


def marks(study: StudyOptions) -> tuple[str, str]:
    """The lines around the part of the report that is written here."""
    name = Path(study.results).name
    return f"<!-- {name}: from here on written by asrprune compare -->", f"<!-- {name}: end -->"


def write_report(study: StudyOptions, cells: Sequence[Cell], records: Sequence[Record]) -> None:
    """Put the tables between the marks of the report, or with them at its end.

    :raises UserError: only one of the marks is there.
    """
    path = Path(study.report)
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Results\n"
    begin, end = marks(study)
    part = f"{begin}\n\n{markdown(study, cells, records)}\n{end}"
    if begin not in text and end not in text:
        write_text(path, f"{text.rstrip()}\n\n## {study.title}\n\n{part}\n")
        return
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise UserError(f"{path}: of the two lines {begin} and {end}, one is missing or misplaced")
    write_text(path, before + part + after)


def written_part(study: StudyOptions) -> str | None:
    """What the report holds between its marks; None without them."""
    path = Path(study.report)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    begin, end = marks(study)
    if begin not in text or end not in text:
        return None
    return text.partition(begin)[2].partition(end)[0].strip() + "\n"


def _key(record: Record) -> tuple[str, float, int, str]:
    return record["method"], record["keep"], record["seed"], record["set"]
