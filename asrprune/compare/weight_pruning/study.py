"""The type of comparison for sparse models."""

from collections.abc import Hashable, Sequence
from typing import Any

from asrprune.compare.measured import how_it_is_made
from asrprune.compare.study import Record, Study
from asrprune.compare.weight_pruning.grid import NetworksCell, cells_of, needs_of, steps_of
from asrprune.compare.weight_pruning.options import WeightStudyOptions
from asrprune.compare.weight_pruning.plots import draw_plots
from asrprune.compare.weight_pruning.records import make_records, runs_in_sherpa, wanted_search
from asrprune.compare.weight_pruning.tables import sections
from asrprune.config import Config
from asrprune.export.onnx_graph import check_packages
from asrprune.export.sherpa import import_sherpa


class WeightPruningStudy(Study):
    """Compares networks of several sizes, which are extracted from the models of trainings."""

    Options = WeightStudyOptions
    options: WeightStudyOptions

    def cells(self, more: Sequence[str] = ()) -> list[NetworksCell]:
        """Return the trainings of the grid and a dense training for each seed."""
        return cells_of(self.options, more)

    def steps(self, cell: NetworksCell) -> dict[str, list[str]]:
        """Return the steps train, average and search; then the steps of each network."""
        return steps_of(self.options, cell, self.folder(cell))

    def needs(self, cell: NetworksCell) -> dict[str, str]:
        """Return the step that each step needs: networks need the average, or their search."""
        return needs_of(cell)

    def expected(self, cell: NetworksCell) -> list[Hashable]:
        """Return the keys of the records: one for each test set and network."""
        return [
            (name, network.method, network.sparsity)
            for name in self.options.test_sets
            for network in cell.networks
        ]

    def key(self, record: Record) -> Hashable:
        """Return the test set, the network's method and its sparsity."""
        return record["set"], record["method"], record["sparsity"]

    def cell_name(self, record: Record) -> str:
        """Return the name of the record's training."""
        return record["training"]

    def make_records(
        self, cell: NetworksCell, config: Config, progress: dict[str, Any]
    ) -> list[Record]:
        """Return one record for each test set and network."""
        return make_records(self.options, cell, config, self.folder(cell), progress)

    def made_by(self, cell: NetworksCell, key: Hashable) -> Record:
        """Return the training's command, how it is tested, the options of the search, the runs."""
        name, method, _ = key
        made = how_it_is_made(self.options, cell, self.folder(cell))
        runs = {} if runs_in_sherpa(self.options, method, name) else None  # any results
        return made | {"search": wanted_search(self.options, method), "runtime": runs}

    def check_packages(self) -> None:
        """Check that networks can be exported, and run if they are to run.

        Raises:
            UserError: a package is not installed.
        """
        check_packages()
        if self.options.runtime:
            import_sherpa()

    def sets(self) -> list[str]:
        """Return the test sets and the development set of the search."""
        dev = [self.options.search.dev_set] if self.options.searched else []
        return [*super().sets(), *dev]

    def sections(self, cells: Sequence[NetworksCell], records: Sequence[Record]) -> list[str]:
        """Return tables of errors, costs and claims."""
        return sections(self.options, cells, records)

    def draw(self, records: Sequence[Record]) -> None:
        """Plot error rates over sizes, and over times if networks were run in sherpa-onnx."""
        draw_plots(self.options, records)
