"""The type of comparison for data pruning."""

from collections.abc import Hashable, Sequence
from typing import Any

from asrprune.compare.data_pruning.grid import KeepCell, cells_of, name_of
from asrprune.compare.data_pruning.options import DataStudyOptions
from asrprune.compare.data_pruning.plots import draw_plots
from asrprune.compare.data_pruning.records import how_it_is_pruned, make_records
from asrprune.compare.data_pruning.tables import sections, short_table
from asrprune.compare.measured import data_words, decoding_words, train_steps
from asrprune.compare.study import Record, Study
from asrprune.config import Config


class DataPruningStudy(Study):
    """Compares methods at keep ratios. Each cell is trained, averaged, decoded and scored."""

    Options = DataStudyOptions
    options: DataStudyOptions

    def cells(self, more: Sequence[str] = ()) -> list[KeepCell]:
        """Return the cells of the grid and their controls."""
        return cells_of(self.options, more)

    def steps(self, cell: KeepCell) -> dict[str, list[str]]:
        """Return the steps train, average, decode and score."""
        folder = self.folder(cell)
        where, what = ["--exp-dir", str(folder)], decoding_words(self.options)
        return {
            **train_steps(self.options, cell, folder),
            "decode": ["decode", *where, *data_words(self.options), *what],
            "score": ["score", *where, *what],
        }

    def needs(self, cell: KeepCell) -> dict[str, str]:
        """Return for each step but the first the step before, whose output it takes."""
        steps = list(self.steps(cell))
        return dict(zip(steps[1:], steps[:-1], strict=True))

    def expected(self, cell: KeepCell) -> list[Hashable]:
        """Return the names of the test sets: a cell has one record for each."""
        return list(self.options.test_sets)

    def key(self, record: Record) -> Hashable:
        """Return the name of the record's test set."""
        return record["set"]

    def cell_name(self, record: Record) -> str:
        """Return the cell's name, made of method, keep ratio and seed."""
        return name_of(record["method"], record["keep"], record["seed"])

    def make_records(
        self, cell: KeepCell, config: Config, progress: dict[str, Any]
    ) -> list[Record]:
        """Return one record for each test set."""
        return make_records(self.options, cell, config, self.folder(cell), progress)

    def made_by(self, cell: KeepCell, key: Hashable) -> Record:
        """Return the training's command and options, epochs, averaging and decoding method.

        The options are those of data pruning. The command alone would not show that a preset has
        changed, because the name of the preset stays.
        """
        return how_it_is_pruned(self.options, cell, self.folder(cell))

    def sections(self, cells: Sequence[KeepCell], records: Sequence[Record]) -> list[str]:
        """Return tables of errors, costs and claims."""
        return sections(self.options, cells, records)

    def short(self, cells: Sequence[KeepCell], records: Sequence[Record]) -> list[tuple[str, ...]]:
        """Return a table of error rates, audio and CPU time."""
        return short_table(self.options, cells, records)

    def draw(self, records: Sequence[Record]) -> None:
        """Plot error rates over audio and time, and the kept shares of the cuts."""
        draw_plots(self.options, records)
