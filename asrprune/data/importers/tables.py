"""Read tables of utterances: TSV, CSV or JSON lines, with columns such as path and text."""

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
    """Yield the utterances of a table.

    Args:
        path: The table.
        base: What relative paths are relative to. None: the table's folder.

    Raises:
        UserError: The table is missing or damaged. The message names the line.
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
    """Yield the rows of a table as dictionaries, by column name.

    Raises:
        UserError: The table is missing or damaged. The message names the line.
    """
    for _, row in numbered_rows(path):
        yield row


def numbered_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row) of a table, without empty lines.

    Raises:
        UserError: The table is missing or damaged. The message names the line.
    """
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
    """Yield (line number, row) of a TSV or CSV file. No field continues in the next line."""
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
    """Return the fields of a line of a TSV file. Quotation marks have no special meaning."""
    return line.split("\t")


def _commas(line: str, where: str) -> list[str]:
    """Return the fields of a line of a CSV file.

    Raises:
        UserError: A quotation mark opens a field that does not end in this line, or ends a field
            that no comma follows.
    """
    try:
        return next(csv.reader((line,), strict=True), [])
    except csv.Error as error:
        # Python says "unexpected end" for a field that continues in the next line
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
