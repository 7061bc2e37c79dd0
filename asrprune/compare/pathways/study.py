"""The type of comparison for models of several languages."""

from collections.abc import Hashable, Sequence
from typing import Any

from asrprune.compare.measured import how_it_is_made
from asrprune.compare.pathways.grid import LanguagesCell, cells_of, needs_of, steps_of
from asrprune.compare.pathways.options import PathwaysStudyOptions
from asrprune.compare.pathways.plots import draw_plots
from asrprune.compare.pathways.records import make_records
from asrprune.compare.pathways.tables import sections
from asrprune.compare.study import Record, Study
from asrprune.config import Config


class PathwaysStudy(Study):
    """Compares trainings that start from each other. Each is tested in some languages."""

    Options = PathwaysStudyOptions
    options: PathwaysStudyOptions

    def cells(self, more: Sequence[str] = ()) -> list[LanguagesCell]:
        """Return the trainings of the grid and all their sources."""
        return cells_of(self.options, more)

    def steps(self, cell: LanguagesCell) -> dict[str, list[str]]:
        """Return the steps train, average, decode, score and prune."""
        return steps_of(self.options, cell, self.folder(cell))

    def needs(self, cell: LanguagesCell) -> dict[str, str]:
        """Return the step that each step needs: decoding and pruning need the average."""
        return needs_of(cell)

    def expected(self, cell: LanguagesCell) -> list[Hashable]:
        """Return the tested languages: a cell has one record for each."""
        return list(cell.languages)

    def key(self, record: Record) -> Hashable:
        """Return the language of a record."""
        return record["language"]

    def cell_name(self, record: Record) -> str:
        """Return the name of the record's training."""
        return record["training"]

    def make_records(
        self, cell: LanguagesCell, config: Config, progress: dict[str, Any]
    ) -> list[Record]:
        """Return one record for each language."""
        return make_records(self.options, cell, config, self.folder(cell), progress)

    def made_by(self, cell: LanguagesCell, key: Hashable) -> Record:
        """Return the training's command, how it is tested, and its sources (``lineage``)."""
        made = how_it_is_made(self.options, cell, self.folder(cell))
        return {**made, "lineage": dict(cell.lineage)}

    def sections(self, cells: Sequence[LanguagesCell], records: Sequence[Record]) -> list[str]:
        """Return tables of errors, costs and claims."""
        return sections(self.options, cells, records)

    def draw(self, records: Sequence[Record]) -> None:
        """Plot the error rates of each language, and the passes over the training speech."""
        draw_plots(self.options, records)
