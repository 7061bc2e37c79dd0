"""Comparisons of costs at equal error rates, as the code that runs comparisons sees them."""

from collections.abc import Sequence

from asrprune.config import load_config
from asrprune.studies.data_pruning.options import CONTROLS, FULL
from asrprune.studies.data_pruning.study import DataPruningStudy
from asrprune.studies.study import Cell, Record
from asrprune.studies.time_to_wer.options import TimeToWerOptions
from asrprune.studies.time_to_wer.plots import draw_plots
from asrprune.studies.time_to_wer.tables import sections


class TimeToWerStudy(DataPruningStudy):
    """Methods at several lengths of training; each cell is trained, averaged, decoded and scored.

    Each length is a training of its own, with its whole schedule.
    """

    Options = TimeToWerOptions
    options: TimeToWerOptions

    def cells(self, more: Sequence[str] = ()) -> list[Cell]:
        """Return the cells of the grid, all of the first seed first."""
        order = [FULL, *self.options.methods]
        wanted = {
            (seed, epochs, order.index(method))
            for part in self.options.grid
            for method in part.methods
            for epochs in part.epochs
            for seed in part.seeds
        }
        cells = []
        for seed, epochs, number in sorted(wanted):
            method = order[number]
            own = CONTROLS[FULL] if method == FULL else self.options.methods[method]
            words = (*self.options.words, *more, f"seed={seed}", *own, f"training.epochs={epochs}")
            load_config(self.options.config, words)  # a misspelt word is found here
            cells.append(
                Cell(
                    name=_name(method, epochs, seed),
                    method=method,
                    seed=seed,
                    words=words,
                    epochs=epochs,
                )
            )
        return cells

    def cell_name(self, record: Record) -> str:
        """Return the cell's name, of method, epochs and seed."""
        return _name(record["method"], record["epochs"], record["seed"])

    def sections(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[str]:
        """Return error rates and costs, ratios of costs, and verdicts on claims."""
        return sections(self.options, cells, records)

    def short(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[str, ...]]:
        """Return nothing: the plots say more."""
        return []

    def draw(self, records: Sequence[Record]) -> None:
        """Draw error rates over costs."""
        draw_plots(self.options, records)


def _name(method: str, epochs: int, seed: int) -> str:
    return f"{method}-{epochs}epochs-seed{seed}"
