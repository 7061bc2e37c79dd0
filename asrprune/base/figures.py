"""Save the figures of plots."""

from pathlib import Path
from typing import Any

from asrprune.base.files import atomic_path

MARKS = "osDv^<>pPX*hd8"  # of the lines of a plot, in order


def save_figure(figure: Any, path: Path) -> None:
    """Save a figure. Equal figures give equal files."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})
