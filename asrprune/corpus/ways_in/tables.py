"""Tables of utterances: TSV, CSV, or a JSON object a line, with columns such as path and text."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asrprune.corpus.ways_in.utterance import Utterance, find_columns, utterance_of
from asrprune.encodings import text_lines
from asrprune.errors import UserError

KINDS = (".tsv", ".csv", ".jsonl", ".json")
CUT = "give it the columns start and duration, a row for each utterance"

Row = dict[str, Any]


def read_table(path: Path, base: Path | None = None) -> Iterator[Utterance]:
    """The utterances of a table.

    :param base: what relative paths are relative to; None: the table's folder.
    :raises UserError: the table is missing or damaged; names the line.
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

    :raises UserError: the table is missing or damaged; names the line.
    """
    for _, row in numbered_rows(path):
        yield row


def numbered_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line, row) of a table, without empty lines."""
    if path.suffix not in KINDS:
        raise UserError(f"{path} is no table: its name should end in {', '.join(KINDS)}")
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    if _is_json(path):
        yield from _objects(path)
    else:
        yield from _separated(path)


def _is_json(path: Path) -> bool:
    return path.suffix in (".jsonl", ".json")


def _separated(path: Path) -> Iterator[tuple[int, Row]]:
    if path.suffix == ".tsv":  # quotes are as good as any other character
        reader = csv.reader(text_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(text_lines(path), strict=True)
    names: list[str] = []
    try:
        for fields in reader:
            if not any(fields):
                continue
            if not names:
                names = [name.strip() for name in fields]
                if len(set(names)) < len(names):
                    twice = next(name for name in names if names.count(name) > 1)
                    raise UserError(f"{path}: two columns are called {twice!r}")
            elif len(fields) != len(names):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields, where the header has "
                    f"{len(names)} ({', '.join(names)})"
                )
            else:
                yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error


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
