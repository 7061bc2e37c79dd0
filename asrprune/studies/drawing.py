"""What the plots of all kinds of comparison have in common."""

from pathlib import Path
from typing import Any

from asrprune.files import atomic_path
from asrprune.studies.rows import Row

MARKS = "osDv^<>pPX*hd8"


def plot_path(results: str, plot: str) -> Path:
    """Beside the records: ``results/compare-hours.png``."""
    path = Path(results)
    return path.with_name(f"{path.stem}-{plot}.png")


def error_bar(row: Row) -> tuple[float, tuple[float, float]]:
    """The mean error rate over seeds in per cent, and how far the least and the most are off."""
    rates = [100 * record["errors"] / max(record["words"], 1) for record in row.records.values()]
    middle = sum(rates) / len(rates)
    return middle, (middle - min(rates), max(rates) - middle)


def save_figure(figure: Any, path: Path) -> None:
    """Equal figures give equal files."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
