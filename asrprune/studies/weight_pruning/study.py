"""Comparisons of sparse models, as the code that runs comparisons sees them."""

from collections.abc import Hashable, Sequence
from typing import Any

from asrprune.config import Config
from asrprune.studies.measured import how_it_is_made
from asrprune.studies.study import Record, Study
from asrprune.studies.weight_pruning.grid import NetworksCell, cells_of, needs_of, steps_of
from asrprune.studies.weight_pruning.options import WeightStudyOptions
from asrprune.studies.weight_pruning.plots import draw_plots
from asrprune.studies.weight_pruning.records import make_records, wanted_search
from asrprune.studies.weight_pruning.tables import sections


class WeightPruningStudy(Study):
    """Trainings, and networks of several sizes out of each of them."""

    Options = WeightStudyOptions
    options: WeightStudyOptions

    def cells(self, more: Sequence[str] = ()) -> list[NetworksCell]:
        """Of the grid, and the dense ones of its seeds."""
        return cells_of(self.options, more)

    def steps(self, cell: NetworksCell) -> dict[str, list[str]]:
        """Train, average, search; then extract, decode and score each network."""
        return steps_of(self.options, cell, self.folder(cell))

    def needs(self, cell: NetworksCell) -> dict[str, str]:
        """Networks need the average, or what found them."""
        return needs_of(cell)

    def expected(self, cell: NetworksCell) -> list[Hashable]:
        """Of each test set, one a network."""
        return [
            (name, network.method, network.sparsity)
            for name in self.options.test_sets
            for network in cell.networks
        ]

    def key(self, record: Record) -> Hashable:
        """The test set and the network."""
        return record["set"], record["method"], record["sparsity"]

    def cell_name(self, record: Record) -> str:
        """As the record says."""
        return record["training"]

    def make_records(
        self, cell: NetworksCell, config: Config, progress: dict[str, Any]
    ) -> list[Record]:
        """Of each test set, one a network."""
        return make_records(self.options, cell, config, self.folder(cell), progress)

    def made_by(self, cell: NetworksCell, key: Hashable) -> Record:
        """The training's command, how it is tested, and how a network was searched."""
        _, method, _ = key
        made = how_it_is_made(self.options, cell, self.folder(cell))
        return made | {"search": wanted_search(self.options, method)}

    def sets(self) -> list[str]:
        """The test sets, and what a search measures its loss on."""
        dev = [self.options.search.dev_set] if self.options.searched else []
        return [*super().sets(), *dev]

    def sections(self, cells: Sequence[NetworksCell], records: Sequence[Record]) -> list[str]:
        """Errors, costs and claims."""
        return sections(self.options, cells, records)

    def draw(self, records: Sequence[Record]) -> None:
        """Error rates against size."""
        draw_plots(self.options, records)
