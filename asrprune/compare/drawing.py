"""Functions for the plots of all types of comparison."""

from pathlib import Path

from asrprune.compare.rows import Row


def plot_path(results: str, plot: str) -> Path:
    """Return the path of a plot, beside the records, such as ``results/compare-hours.png``."""
    path = Path(results)
    return path.with_name(f"{path.stem}-{plot}.png")


def error_bar(row: Row) -> tuple[float, tuple[float, float]]:
    """Return the mean error rate over seeds, and its distances to the lowest and the highest rate.

    All three are in per cent.
    """
    rates = [100 * record["errors"] / max(record["words"], 1) for record in row.records.values()]
    middle = sum(rates) / len(rates)
    return middle, (middle - min(rates), max(rates) - middle)
