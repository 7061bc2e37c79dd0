"""The interface of a comparison to the code that runs it: cells, steps, records, report."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asrprune.compare.options import StudyOptions
from asrprune.config import Config

Record = dict[str, Any]  # plain values; each record has a "set" and a "seed"
TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training of a comparison, with the decoding and scoring of its model.

    Attributes:
        name: the name of the cell's folder, unique in the comparison.
        method: the name of the method that the cell trains with.
        seed: the seed of the training.
        overrides: ``key=value`` changes of the comparison's configuration.
        epochs: the number of epochs of the training.
        after: names of the cells whose files this cell needs. They come earlier in the grid.
    """

    name: str
    method: str
    seed: int
    overrides: tuple[str, ...]
    epochs: int
    after: tuple[str, ...] = ()


class Study(ABC):
    """A type of comparison. The modules beside this one hold what all types share."""

    Options: ClassVar[type[StudyOptions]]

    def __init__(self, options: StudyOptions):
        self.options = options

    def folder(self, cell: Cell) -> Path:
        """Return the folder of a cell's training, results and record."""
        return Path(self.options.exp_dir, cell.name)

    @abstractmethod
    def cells(self, more: Sequence[str] = ()) -> list[Cell]:
        """Return the cells, each once, in the order in which they are run and shown.

        Args:
            more: overrides for all trainings. They are applied after the comparison's own.

        Raises:
            UserError: the configuration refuses an override.
        """

    @abstractmethod
    def steps(self, cell: Cell) -> dict[str, list[str]]:
        """Return the steps of a cell in order: step -> arguments of the ``asrprune`` command.

        The first step is `TRAIN`.
        """

    @abstractmethod
    def needs(self, cell: Cell) -> dict[str, str]:
        """Return the step whose output each step but the first takes: step -> needed step."""

    @abstractmethod
    def expected(self, cell: Cell) -> list[Hashable]:
        """Return the keys (`key`) of a finished cell's records, in the order of the record file."""

    @abstractmethod
    def key(self, record: Record) -> Hashable:
        """Return a value that no two records of a cell share."""

    @abstractmethod
    def cell_name(self, record: Record) -> str:
        """Return the name of the cell that made a record."""

    @abstractmethod
    def make_records(self, cell: Cell, config: Config, progress: dict[str, Any]) -> list[Record]:
        """Return the records of a cell whose steps are all done.

        Args:
            cell: the cell.
            config: the configuration of the cell's training.
            progress: for each step, the time and attempts it took (`asrprune.compare.cell`).

        Raises:
            UserError: a file of the cell is missing or damaged.
        """

    @abstractmethod
    def made_by(self, cell: Cell, key: Hashable) -> Record:
        """Return the values by which a record says how it was made, if it were made today.

        Where a value is a dictionary, the record's dictionary may have more keys.
        """

    def reused(self, cells: Sequence[Cell], data: str | None) -> list[Record]:
        """Return records of other comparisons that cells take over; none for types that do not.

        Args:
            cells: all cells of the grid.
            data: the digest of the training data; None while there is no data.
        """
        return []

    def check_packages(self) -> None:
        """Check, before hours of training, that all packages are installed that the steps need.

        Raises:
            UserError: a package is missing.
        """
        return  # most types need no other packages than a training

    def sets(self) -> list[str]:
        """Return the names of the sets that are used besides the training set."""
        return list(self.options.test_sets)

    @abstractmethod
    def sections(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[str]:
        """Return the parts of the report below its heading.

        They are a pure function of the options and the records.

        Args:
            cells: all cells of the grid, for the order of the rows.
            records: records of the grid, at least one.
        """

    def short(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[str, ...]]:
        """Return a small table for the terminal, its header first; empty for types without one.

        Args:
            cells: all cells of the grid, for the order of the rows.
            records: records of the grid, at least one.
        """
        return []

    @abstractmethod
    def draw(self, records: Sequence[Record]) -> None:
        """Write the plots. Equal records give equal files."""
