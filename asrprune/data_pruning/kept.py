"""The cuts that a plan keeps, in manifest order, at the cost of what is kept.

Cuts in memory are passed over without being looked at, lines of a manifest without being decoded.
Where time is dropped, a cut is represented by a `Stand` of the duration that is left of it, so that
a sampler fills its batches by what the model will see.
"""

import copy
import gzip
import io
from collections.abc import Iterable, Iterator
from itertools import compress
from typing import IO, Any

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.lazy import LazyManifestIterator
from lhotse.serialization import decode_json_line, deserialize_item, open_best

from asrprune.errors import UserError


class Stand(Cut):
    """A cut as a sampler sees it: ``duration`` is what is left of it after time dropping."""

    # a `Cut` so that lhotse gives ids to copies of it; it has and needs nothing else of one

    def __init__(self, cut: Cut, duration: float):
        self.cut = cut
        self.id = cut.id
        self.duration = duration

    def with_id(self, name: str) -> "Stand":
        """What stands for a copy, which lhotse makes to give each rank something."""
        return Stand(self.cut.with_id(name), self.duration)


class KeptCuts:
    """Iterates over those of the N cuts that ``keep`` says; it may change between iterations."""

    def __init__(self, cuts: CutSet, count: int):
        """
        :param cuts: in memory, or lazy.
        :param count: N, which the index of these cuts says.
        :raises UserError: there are more or fewer.
        """
        self.keep: np.ndarray | None = None  # (N,) bool; None: all
        self.seconds_left: np.ndarray | None = None  # (N,) after time dropping; None: all
        self.suffix = ""  # of the ids, where cuts come again within an epoch
        self._cuts = cuts
        self._in_memory = None if cuts.is_lazy else list(cuts)
        data = cuts.data
        self._path = data.path if isinstance(data, LazyManifestIterator) else None
        known = self._in_memory if self._path is None else data
        if known is not None and len(known) != count:
            raise UserError(f"the index is of {count} cuts, and the sampler got {len(known)}")

    def part(self, keep: np.ndarray | None, suffix: str = "") -> "KeptCuts":
        """The same cuts, of which ``keep`` (N,) says which; only this is not shared with it."""
        other = copy.copy(self)
        other.keep, other.suffix = keep, suffix
        return other

    def __iter__(self) -> Iterator[Any]:
        kept = self._kept()
        if self.suffix:
            kept = (cut.with_id(cut.id + self.suffix) for cut in kept)
        if self.seconds_left is None:
            return kept
        left = self.seconds_left if self.keep is None else self.seconds_left[self.keep]
        return map(Stand, kept, left.tolist())

    def _kept(self) -> Iterator[Cut]:
        if self._in_memory is not None:
            return self._chosen(self._in_memory)
        if self._path is not None and self.keep is not None:
            return self._lines()
        return self._chosen(self._cuts)

    def _chosen(self, items: Iterable[Any]) -> Iterator[Any]:
        return iter(items) if self.keep is None else compress(items, self.keep.tolist())

    def _lines(self) -> Iterator[Cut]:
        with _open_lines(self._path) as file:
            for line in self._chosen(file):
                yield deserialize_item(decode_json_line(line))


def _open_lines(path: Any) -> IO:
    """A manifest by lines; as bytes where it is a file, so that dropped lines are not decoded."""
    name = str(path)
    if "://" not in name and name.endswith(".jsonl.gz"):
        return io.BufferedReader(gzip.open(name, "rb"), 1 << 20)  # twice as fast as its own lines
    return open_best(path, "r")


def full_cuts(batch: CutSet) -> CutSet:
    """A sampler's batch with the cuts in place of what stood for them."""
    if not isinstance(next(iter(batch)), Stand):
        return batch
    cuts = []
    for stand in batch:
        if hasattr(stand, "dataloading_info"):
            stand.cut.dataloading_info = stand.dataloading_info
        cuts.append(stand.cut)
    return CutSet.from_cuts(cuts)
