"""Write Markdown tables."""

from collections.abc import Iterable, Sequence

NOTHING = "–"  # in a cell without a value


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table, without a newline at its end.

    Args:
        columns: the heads of the columns.
        rows: the cells of each row. A bar in a cell becomes a slash, as it would end the cell.
    """
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "/")
