"""The type of comparison for costs at equal error rates."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from asrprune.base.environment import machine_id
from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.compare.current import changed, inputs
from asrprune.compare.data_pruning.options import CONTROLS, FULL
from asrprune.compare.data_pruning.study import DataPruningStudy
from asrprune.compare.study import Cell, Record
from asrprune.compare.time_to_wer.options import TimeToWerOptions
from asrprune.compare.time_to_wer.plots import draw_plots
from asrprune.compare.time_to_wer.tables import sections
from asrprune.config import load_config


class TimeToWerStudy(DataPruningStudy):
    """Compares methods at several lengths of training.

    Each length is a training of its own, with its whole schedule. Each cell is trained, averaged,
    decoded and scored.
    """

    Options = TimeToWerOptions
    options: TimeToWerOptions

    def cells(self, more: Sequence[str] = ()) -> list[Cell]:
        """Return the cells of the grid, sorted by seed."""
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
            overrides = (
                *self.options.overrides,
                *more,
                f"seed={seed}",
                *own,
                f"training.epochs={epochs}",
            )
            load_config(self.options.config, overrides)  # finds a misspelt override
            cells.append(
                Cell(
                    name=_name(method, epochs, seed),
                    method=method,
                    seed=seed,
                    overrides=overrides,
                    epochs=epochs,
                )
            )
        return cells

    def reused(self, cells: Sequence[Cell], data: str | None) -> list[Record]:
        """Return records of the files of ``reuse`` that cells of this comparison would make today.

        If other machines made them, the last seed of each method and length is left out: it is
        trained here too. Trainings of one type on both machines give the ratio of their paces.

        Raises:
            UserError: a file is missing or damaged.
        """
        found = []
        today = inputs(self, cells[0]) if cells else {}
        for path in self.options.reuse:
            if not Path(path).is_file():
                raise UserError(
                    f"reuse: {path} does not exist. Run the comparison that writes it first, or "
                    "remove the file from reuse:"
                )
            for record in read_json(path):
                if record["set"] in self.options.test_sets and data in (None, record["data"]):
                    found += [
                        record | self._labels(cell)
                        for cell in cells
                        if (cell.seed, cell.epochs) == (record["seed"], record["epochs"])
                        and not changed(self, cell, record, today)
                    ]
        if len({self.cell_name(record) for record in found}) == len(cells):
            return found  # nothing is trained here
        last = {
            _name(method, epochs, max(cell.seed for cell in some))
            for (method, epochs), some in _by_type(cells).items()
        }
        here = machine_id()
        return [
            record
            for record in found
            if record["machine"]["id"] == here or self.cell_name(record) not in last
        ]

    def _labels(self, cell: Cell) -> Record:
        """Return the values that replace the other comparison's values in a record of this cell."""
        keep = load_config(self.options.config, cell.overrides).data_pruning.keep
        return {"method": cell.method, "keep": keep}

    def cell_name(self, record: Record) -> str:
        """Return the cell's name, made of method, epochs and seed."""
        return _name(record["method"], record["epochs"], record["seed"])

    def sections(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[str]:
        """Return tables of error rates, costs, ratios of costs, and verdicts on claims."""
        return sections(self.options, cells, records)

    def short(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[str, ...]]:
        """Return no table: the plots show more."""
        return []

    def draw(self, records: Sequence[Record]) -> None:
        """Plot error rates over costs."""
        draw_plots(self.options, records)


def _by_type(cells: Sequence[Cell]) -> dict[tuple[str, int], list[Cell]]:
    types: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in cells:
        types[cell.method, cell.epochs].append(cell)
    return types


def _name(method: str, epochs: int, seed: int) -> str:
    return f"{method}-{epochs}epochs-seed{seed}"
