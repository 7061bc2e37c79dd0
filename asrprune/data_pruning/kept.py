"""Iterate over the cuts that a plan keeps, and do not decode the others.

Cuts are found in the index by their ids, because a CutSet may come in another order at each
iteration. Cuts in memory are looked up once. Only the lines of a lazy manifest are chosen by their
position. Lines that are not kept are skipped without being decoded, and the ids of the others are
compared with the index. Where time is dropped, a `CutProxy` stands for each cut. The duration of
the proxy is what time dropping leaves, so that a sampler fills its batches by what the model will
see.
"""

import copy
import gzip
import io
from collections.abc import Iterable, Iterator
from itertools import compress, count
from typing import IO, Any

import numpy as np
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.lazy import LazyManifestIterator
from lhotse.serialization import decode_json_line, deserialize_item, open_best

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.sources import check_source, read_in_order

_CHECKED = 1024  # lines of a manifest whose ids are compared at a time


class CutProxy(Cut):
    """A cut as a sampler sees it: ``duration`` is the duration after time dropping."""

    # a `Cut`, so that lhotse can give a copy another id; no other part of a `Cut` is set or needed

    def __init__(self, cut: Cut, duration: float):
        self.cut = cut
        self.id = cut.id
        self.duration = duration

    def with_id(self, name: str) -> "CutProxy":
        """Return a proxy with another id. Lhotse makes such copies so that each rank gets a cut."""
        return CutProxy(self.cut.with_id(name), self.duration)


class KeptCuts:
    """Iterates over those of the N cuts that ``keep`` selects.

    ``keep`` may change between iterations. The order is that of the CutSet. If the CutSet comes in
    another order at each iteration, the order is drawn from ``(seed, epoch)``.
    """

    def __init__(self, cuts: CutSet, index: CutIndex, seed: int = 0, world_size: int = 1):
        """Bind the cuts to their index.

        Args:
            cuts: the training cuts, in memory or lazy.
            index: of these cuts; for a lazy manifest in the order of its lines, else in any order.
            seed: seed of the order, where the CutSet draws it.
            world_size: number of ranks that draw from these cuts.

        Raises:
            UserError: the cuts are not those of the index, or their order cannot be repeated.
        """
        check_source(cuts, world_size)
        self.keep: np.ndarray | None = None  # (N,) bool; None: all
        self.seconds_left: np.ndarray | None = None  # (N,) after time dropping; None: no dropping
        self.suffix = ""  # appended to the ids of cuts that come again within an epoch
        self.epoch = 0
        self._index, self._cuts, self._seed = index, cuts, seed
        self._path = cuts.data.path if isinstance(cuts.data, LazyManifestIterator) else None
        self._in_memory: list[Cut] | None = None
        self._lines = np.zeros(0, np.int64)  # index lines of the cuts in memory
        found = None
        if not cuts.is_lazy:
            self._in_memory = list(cuts)
            found = len(self._in_memory)
        elif self._path is not None:
            with _open_lines(self._path) as file:
                found = sum(1 for _ in _not_blank(file))
        if found is not None and found != len(index):
            raise UserError(
                f"The index has {len(index)} cuts, but the sampler got {found}. Make the index of "
                "the same cuts."
            )
        if self._in_memory is not None:
            self._lines = self._lines_of([cut.id for cut in self._in_memory])

    def part(self, keep: np.ndarray | None, suffix: str = "") -> "KeptCuts":
        """Return the same cuts with another ``keep`` (N,) and ``suffix``. All else is shared."""
        other = copy.copy(self)
        other.keep, other.suffix = keep, suffix
        return other

    def __iter__(self) -> Iterator[Any]:
        for line, cut in self._kept():
            if self.suffix:
                cut = cut.with_id(cut.id + self.suffix)
            if self.seconds_left is not None:
                cut = CutProxy(cut, float(self.seconds_left[line]))
            yield cut

    def _kept(self) -> Iterator[tuple[int, Cut]]:
        """Return the kept cuts, each with its line in the index."""
        if self._in_memory is not None:
            pairs = zip(self._lines.tolist(), self._in_memory, strict=True)
            return self._chosen(self._lines, pairs)
        return self._of_file() if self._path is not None else self._looked_up()

    def _chosen(self, lines: np.ndarray, items: Iterable[Any]) -> Iterator[Any]:
        return iter(items) if self.keep is None else compress(items, self.keep[lines].tolist())

    def _of_file(self) -> Iterator[tuple[int, Cut]]:
        """Decode the manifest's lines that are kept, and compare their ids with the index."""
        with _open_lines(self._path) as file:
            lines = zip(count(), _not_blank(file))
            wanted = self._chosen(np.arange(len(self._index)), lines)
            numbers: list[int] = []
            cuts: list[Cut] = []
            for number, line in wanted:
                numbers.append(number)
                cuts.append(deserialize_item(decode_json_line(line)))
                if len(cuts) == _CHECKED:
                    yield from self._as_indexed(numbers, cuts)
                    numbers, cuts = [], []
            yield from self._as_indexed(numbers, cuts)

    def _as_indexed(self, numbers: list[int], cuts: list[Cut]) -> Iterator[tuple[int, Cut]]:
        """Return the cuts with their numbers, after a check that these are their index lines.

        Raises:
            UserError: a line holds another cut than when the index was made.
        """
        lines = self._index.find_cuts([cut.id for cut in cuts], exact=True)
        for number, line, cut in zip(numbers, lines.tolist(), cuts, strict=True):
            if number != line:
                raise UserError(
                    f"{self._path}: cut {number + 1} is {cut.id!r}, but the index has another cut "
                    "at this position. The file has changed, or the index was made of another "
                    "file. Make the index again with CutIndex.from_manifest."
                )
        return zip(numbers, cuts, strict=True)

    def _looked_up(self) -> Iterator[tuple[int, Cut]]:
        """Yield the kept cuts of a CutSet without a fixed order, found by their ids."""
        for piece in read_in_order(self._cuts, self._seed, self.epoch):
            lines = self._lines_of([cut.id for cut in piece])
            yield from self._chosen(lines, zip(lines.tolist(), piece, strict=True))

    def _lines_of(self, ids: list[str]) -> np.ndarray:
        """Return the index's lines of the cuts.

        Raises:
            UserError: a cut is not in the index.
        """
        lines = self._index.find_cuts(ids, exact=True)
        if (missing := np.flatnonzero(lines < 0)).size:
            raise UserError(
                f"Cut {ids[missing[0]]!r} comes out of the training CutSet, but the index does "
                "not hold it. Make the index of the same CutSet. If the set draws new ids or "
                "other cuts at each iteration (mix without preserve_id, slices, mux with a seed "
                'of "randomized"), make them fixed.'
            )
        return lines


def _not_blank(lines: Iterable[Any]) -> Iterator[Any]:
    return (line for line in lines if not line.isspace())


def _open_lines(path: Any) -> IO:
    """Open a manifest to read its lines.

    A local ``.jsonl.gz`` file gives bytes, so that dropped lines are not decoded.
    """
    name = str(path)
    if "://" not in name and name.endswith(".jsonl.gz"):
        # twice as fast as the lines of the gzip file itself
        return io.BufferedReader(gzip.open(name, "rb"), 1 << 20)
    return open_best(path, "r")


def full_cuts(batch: CutSet) -> CutSet:
    """Return a sampler's batch with the cuts in place of their proxies."""
    if not isinstance(next(iter(batch)), CutProxy):
        return batch
    cuts = []
    for proxy in batch:
        if hasattr(proxy, "dataloading_info"):
            proxy.cut.dataloading_info = proxy.dataloading_info
        cuts.append(proxy.cut)
    return CutSet.from_cuts(cuts)
