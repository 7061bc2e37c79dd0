"""What a comparison is to the code that runs it: its cells, their steps, records and report."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asrprune.config import Config
from asrprune.studies.options import StudyOptions

Record = dict[str, Any]  # of plain values; it has a "set" and a "seed"
TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One training: ``words`` are the ``key=value`` words after the comparison's config.

    ``after``: the names of the cells whose files it needs, which are before it in their order.
    """

    name: str  # of its folder; no two of a comparison are alike
    method: str
    seed: int
    words: tuple[str, ...]
    epochs: int
    after: tuple[str, ...] = ()


class Study(ABC):
    """A kind of comparison. What all kinds have in common is in the modules beside this one."""

    Options: ClassVar[type[StudyOptions]]

    def __init__(self, options: StudyOptions):
        self.options = options

    def folder(self, cell: Cell) -> Path:
        """Where a cell's training, results and record are."""
        return Path(self.options.exp_dir, cell.name)

    @abstractmethod
    def cells(self, more: Sequence[str] = ()) -> list[Cell]:
        """The trainings, each once, in the order in which they are run and shown.

        Args:
            more: words for all trainings, after the comparison's own.

        Raises:
            UserError: words that the configuration refuses.
        """

    @abstractmethod
    def steps(self, cell: Cell) -> dict[str, list[str]]:
        """Step -> the words after ``asrprune``, in order; the first one is `TRAIN`."""

    @abstractmethod
    def needs(self, cell: Cell) -> dict[str, str]:
        """Step -> the step whose output it takes; of each but the first."""

    @abstractmethod
    def expected(self, cell: Cell) -> list[Hashable]:
        """The keys (`key`) of the records that a finished cell leaves, in the order of the file."""

    @abstractmethod
    def key(self, record: Record) -> Hashable:
        """What tells a record from the others of its cell."""

    @abstractmethod
    def cell_name(self, record: Record) -> str:
        """The name of the cell that left a record."""

    @abstractmethod
    def make_records(self, cell: Cell, config: Config, progress: dict[str, Any]) -> list[Record]:
        """The records of a cell whose steps are done.

        Args:
            progress: by step, what it took (`asrprune.studies.cell`).

        Raises:
            UserError: a file of the cell is missing or damaged.
        """

    @abstractmethod
    def made_by(self, cell: Cell, key: Hashable) -> Record:
        """What a record says of how it was made, if the cell leaves it today.

        Of a dictionary in it, the record's own may say more.
        """

    def sets(self) -> list[str]:
        """The sets of the data that are used, besides what is trained on."""
        return list(self.options.test_sets)

    @abstractmethod
    def sections(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[str]:
        """What the report says below its heading, a pure function of options and records.

        Args:
            cells: all of the grid, for the order of the rows.
            records: of the grid, one at least.
        """

    def short(self, cells: Sequence[Cell], records: Sequence[Record]) -> list[tuple[str, ...]]:
        """Return a table for the terminal, its head first; nothing, if a kind has none.

        Args:
            cells: all of the grid, for the order of the rows.
            records: of the grid, one at least.
        """
        return []

    @abstractmethod
    def draw(self, records: Sequence[Record]) -> None:
        """Write the plots; equal records give equal files."""
