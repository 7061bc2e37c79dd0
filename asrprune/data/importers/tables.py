"""Tables of utterances: TSV, CSV, or a JSON object a line, with columns such as path and text."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError
from asrprune.data.importers.utterance import Utterance, find_columns, utterance_of
from asrprune.data.names import explain_missing

KINDS = (".tsv", ".csv", ".jsonl", ".json")
CUT = "give it the columns start and end (or duration), a row for each utterance"

Row = dict[str, Any]


def read_table(path: Path, base: Path | None = None) -> Iterator[Utterance]:
    """The utterances of a table.

    Args:
        base: what relative paths are relative to; None: the table's folder.

    Raises:
        UserError: the table is missing or damaged; names the line.
    """
    base = path.parent if base is None else base
    names: list[str] = []
    for number, row in numbered_rows(path):
        where = f"{path}, line {number}"
        if list(row) != names:  # JSON objects may differ
            names = list(row)
            columns = find_columns(names, where if _is_json(path) else str(path))
        yield utterance_of(row, columns, base, where)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a table, columns by their names.

    Raises:
        UserError: the table is missing or damaged; names the line.
    """
    for _, row in numbered_rows(path):
        yield row


def numbered_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line, row) of a table, without empty lines."""
    if path.suffix not in KINDS:
        raise UserError(f"{path} is no table: its name should end in {', '.join(KINDS)}")
    if not path.is_file():
        raise UserError(f"{explain_missing(path)} does not exist")
    if _is_json(path):
        yield from _objects(path)
    else:
        yield from _separated(path)


def _is_json(path: Path) -> bool:
    return path.suffix in (".jsonl", ".json")


def _separated(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line, row). Every line is read by itself: a quotation mark opens no second line."""
    split = _tabs if path.suffix == ".tsv" else _commas
    names: list[str] = []
    for number, line in enumerate(text_lines(path), 1):
        line = line.rstrip("\r\n")
        where = f"{path}, line {number}"
        fields = split(line, where)
        if not any(fields):
            continue
        if not names:
            names = [name.strip() for name in fields]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(f"{path}: two columns are called {twice!r}")
        elif len(fields) != len(names):
            raise UserError(
                f"{where}: {len(fields)} fields, where the header has {len(names)} "
                f"({', '.join(names)})"
            )
        else:
            yield number, dict(zip(names, fields, strict=True))


def _tabs(line: str, _: str) -> list[str]:
    """Return the fields of a line of a TSV file; quotation marks are characters like others."""
    return line.split("\t")


def _commas(line: str, where: str) -> list[str]:
    """Return the fields of a line of a CSV file.

    Raises:
        UserError: A quotation mark opens a field that does not end in this line, or has something
            else than a comma behind it.
    """
    try:
        return next(csv.reader((line,), strict=True), [])
    except csv.Error as error:
        # Python's words for a field that goes on in the next line, and those for other mistakes
        what = (
            "a quotation mark opens a field that does not end in this line"
            if "unexpected end" in str(error)
            else f"a quotation mark in the wrong place ({error})"
        )
        raise UserError(
            f"{where}: {what}. A field must not span lines, since a lone quotation mark would "
            "swallow rows. Write a quotation mark in a text twice, in a field with quotation marks "
            'around it ("say ""yes"""), or write the table as TSV, where quotation marks are '
            "characters like others"
        ) from error


def _objects(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: no JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: no JSON object, with a value for each column")
        yield number, row
