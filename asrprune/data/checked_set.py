"""Hold a cut set after its checks: valid cuts, rejected cuts with reasons, and statistics."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from asrprune.base.randomness import key_to_seed
from asrprune.data.checks import OF_FEATURES, Checked, FeatureSums
from asrprune.data.statistics import CutStatistics


@dataclass(frozen=True)
class Rejection:
    """A line of ``<corpus>_rejected.tsv``."""

    split: str
    id: str
    reason: str
    detail: str
    given: bool = False  # the features came with the cuts, so they must not be deleted


class CutFile:
    """Lines of valid cuts, in a temporary file until the whole corpus is checked."""

    def __init__(self, file: IO[bytes]):
        self.ids: list[str] = []
        self._ends = [0]
        self._file = file

    def add(self, cut_id: str, line: bytes) -> None:
        """Append a cut."""
        self.ids.append(cut_id)
        self._ends.append(self._ends[-1] + self._file.write(line))

    def lines(self, order: list[int] | None = None) -> Iterator[bytes]:
        """Yield all lines, in the given order or else in the order of arrival."""
        for index in range(len(self.ids)) if order is None else order:
            self._file.seek(self._ends[index])
            yield self._file.read(self._ends[index + 1] - self._ends[index])

    def shuffled_order(self, seed: int) -> list[int]:
        """Return a random order of the lines, which depends on the seed and the cut ids alone."""
        keys = [(key_to_seed(seed, "cut order", cut_id), cut_id) for cut_id in self.ids]
        return sorted(range(len(keys)), key=keys.__getitem__)


class CheckedSet:
    """A cut set after its checks: valid cuts, rejections, statistics and feature sums."""

    def __init__(self, name: str, file: IO[bytes]):
        self.name = name
        self.valid = CutFile(file)
        self.rejections: list[Rejection] = []
        self.doubts: list[str] = []  # valid cuts that are strange, and in what way
        self.languages: Counter[str] = Counter()  # languages of all checked cuts
        self.left: set[str] = set()  # languages of the valid cuts
        self.statistics = CutStatistics()
        self.sums = FeatureSums()

    @property
    def total(self) -> int:
        """The number of checked cuts."""
        return len(self.valid.ids) + len(self.rejections)

    def take(self, checked: Checked) -> None:
        """Add a checked cut to the valid cuts or to the rejections."""
        self.languages[checked.language] += 1
        if checked.reason:
            given = checked.reason in OF_FEATURES and checked.given
            self.rejections.append(
                Rejection(checked.split, checked.id, checked.reason, checked.detail, given)
            )
        else:
            if checked.doubt:
                self.doubts.append(f"{checked.id} ({checked.doubt})")
            self.left.add(checked.language)
            self.valid.add(checked.id, checked.line)
            self.statistics.add(checked.id, checked.duration, checked.text, checked.speaker)
