"""Comparisons of models of several languages, as the code that runs comparisons sees them."""

from collections.abc import Hashable, Sequence
from typing import Any

from asrprune.config import Config
from asrprune.studies.measured import how_it_is_made
from asrprune.studies.pathways.grid import LanguagesCell, cells_of, needs_of, steps_of
from asrprune.studies.pathways.options import PathwaysStudyOptions
from asrprune.studies.pathways.plots import draw_plots
from asrprune.studies.pathways.records import make_records
from asrprune.studies.pathways.tables import sections
from asrprune.studies.study import Record, Study


class PathwaysStudy(Study):
    """Trainings that go on from one another; each is decoded in its languages."""

    Options = PathwaysStudyOptions
    options: PathwaysStudyOptions

    def cells(self, more: Sequence[str] = ()) -> list[LanguagesCell]:
        """Of the grid, and what they begin with."""
        return cells_of(self.options, more)

    def steps(self, cell: LanguagesCell) -> dict[str, list[str]]:
        """Train, average, decode, score, prune."""
        return steps_of(self.options, cell, self.folder(cell))

    def needs(self, cell: LanguagesCell) -> dict[str, str]:
        """Decoding and pruning need the average."""
        return needs_of(cell)

    def expected(self, cell: LanguagesCell) -> list[Hashable]:
        """One a language."""
        return list(cell.languages)

    def key(self, record: Record) -> Hashable:
        """The language."""
        return record["language"]

    def cell_name(self, record: Record) -> str:
        """As the record says."""
        return record["training"]

    def make_records(
        self, cell: LanguagesCell, config: Config, progress: dict[str, Any]
    ) -> list[Record]:
        """One a language."""
        return make_records(self.options, cell, config, self.folder(cell), progress)

    def made_by(self, cell: LanguagesCell, key: Hashable) -> Record:
        """The training's command, how it is tested, and what it began with."""
        made = how_it_is_made(self.options, cell, self.folder(cell))
        return {**made, "lineage": dict(cell.lineage)}

    def sections(self, cells: Sequence[LanguagesCell], records: Sequence[Record]) -> list[str]:
        """Errors, costs and claims."""
        return sections(self.options, cells, records)

    def draw(self, records: Sequence[Record]) -> None:
        """Error rates of each language, and against the speech that was trained on."""
        draw_plots(self.options, records)
