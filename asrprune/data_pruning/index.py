"""Hold the cuts of a training manifest as arrays: ids, durations, groups and utterances."""

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.data_pruning.descriptions import (
    Description,
    describe_cut,
    describe_lines,
    in_fixed_order,
)
from asrprune.data_pruning.ids import (
    READINGS,
    all_found,
    check_distinct,
    copied_once,
    find_ids,
    hash_pair,
    number_ids,
    utterance_id,
)
from asrprune.data_pruning.token_counts import CountTokens, TokenCounter

# Durations are multiples of 1/1024 s (about 1 ms), so that their sums are exact in any order.
TICKS = 1024

_FIELDS = ("language", "speaker", "corpus")


class CutIndex:
    """N cuts in manifest order, and their U utterances in order of first appearance.

    The *line* of a cut is its number in this order, from 0. Copies of one utterance, such as
    speed-perturbed cuts, have lines of their own, and share one score.

    - ``cut_hash`` (N,) uint64 and ``ids_hash`` (U,) uint64: hashes of the ids of cuts and
      utterances; the ids themselves stay in the manifest
    - ``utterance`` (N,) int32: the utterance of each cut
    - ``duration`` (N,) float32: seconds, in multiples of 1/1024
    - ``num_frames`` (N,) int32: feature frames, of 10 ms where the cuts have no features
    - ``num_tokens`` (N,) int32: tokens of the transcripts; None if they were not counted
    - ``groups``: grouping, such as "language", "speaker" or "corpus" -> (codes (N,) of the smallest
      unsigned type, list of group names); cuts without a group have the name ""
    - ``digest``: a hash of the cuts' ids, durations and utterances, in order
    """

    def __init__(
        self,
        cut_hash: np.ndarray,
        duration: np.ndarray,
        utterance: np.ndarray | None = None,
        ids_hash: np.ndarray | None = None,
        groups: Mapping[str, tuple[np.ndarray, list[str]]] | None = None,
        share_copies: bool = True,
        num_frames: np.ndarray | None = None,
        num_tokens: np.ndarray | None = None,
    ) -> None:
        """Build the index from arrays that describe the cuts.

        Args:
            cut_hash: (N,) distinct hashes of the cut ids, made by `hash_id`.
            duration: (N,) seconds.
            utterance: (N,) utterance of each cut; by default each cut is its own utterance.
            ids_hash: (U,) hashes of the utterance ids; required if ``utterance`` is given.
            groups: grouping -> (codes (N,), group names).
            share_copies: whether copies of an utterance have one score.
            num_frames: (N,) feature frames; by default frames of 10 ms, from the durations.
            num_tokens: (N,) tokens of the transcripts; by default unknown.

        Raises:
            UserError: there are no cuts.
        """
        if not len(cut_hash):
            raise UserError("the training manifest holds no cuts")
        self.cut_hash = np.ascontiguousarray(cut_hash, dtype=np.uint64)
        ticks = np.rint(np.asarray(duration, dtype=np.float64) * TICKS)
        self.duration = (np.maximum(ticks, 1) / TICKS).astype(np.float32)
        if utterance is None:
            utterance, ids_hash = np.arange(len(cut_hash), dtype=np.int32), self.cut_hash
        self.utterance = np.ascontiguousarray(utterance, dtype=np.int32)
        self.ids_hash = np.ascontiguousarray(ids_hash, dtype=np.uint64)
        self.groups = {
            name: (np.asarray(codes).astype(np.min_scalar_type(max(len(names) - 1, 0))), names)
            for name, (codes, names) in (groups or {}).items()
        }
        self.share_copies = share_copies
        if num_frames is None:
            num_frames = (np.rint(self.duration.astype(np.float64) * 16000) + 80) // 160
        self.num_frames = np.asarray(num_frames).astype(np.int32)
        self.num_tokens = None if num_tokens is None else np.asarray(num_tokens).astype(np.int32)
        self.digest = self._digest()
        self._cut_order: np.ndarray | None = None
        self._utterance_order: np.ndarray | None = None
        self._strata: dict[tuple[int, str], np.ndarray] = {}
        self._seconds: dict[tuple[int, str], np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.cut_hash)

    @property
    def num_utterances(self) -> int:
        """The number U of utterances."""
        return len(self.ids_hash)

    @classmethod
    def from_cuts(
        cls,
        cuts: Iterable[Any],
        share_copies: bool = True,
        count_tokens: CountTokens | None = None,
    ) -> "CutIndex":
        """Make the index of lhotse cuts, in their order.

        A lazy CutSet may come in another order at each iteration. It is indexed in a fixed order.

        Args:
            cuts: the cuts.
            share_copies: whether copies of an utterance have one score.
            count_tokens: function from texts to the number of tokens of each, for time dropping.
                Each call gets some thousand texts. None: tokens are not counted.

        Raises:
            UserError: there are no cuts; the CutSet has no end, or its order cannot be repeated;
                two cuts have the same id; a cut has no valid duration; or ``count_tokens`` does not
                return a number for each text.
        """
        return cls._build(map(describe_cut, in_fixed_order(cuts)), share_copies, count_tokens)

    @classmethod
    def from_manifest(
        cls,
        path: str | Path,
        share_copies: bool = True,
        count_tokens: CountTokens | None = None,
    ) -> "CutIndex":
        """Make the index of a ``.jsonl`` or ``.jsonl.gz`` manifest with one cut on each line.

        Lines are read as JSON only, without lhotse objects. Empty lines are not counted.

        Args:
            path: path of the manifest.
            share_copies: as in `from_cuts`.
            count_tokens: as in `from_cuts`.

        Raises:
            UserError: as in `from_cuts`; or the file is missing, damaged or not a cut manifest.
        """
        return cls._build(describe_lines(Path(path)), share_copies, count_tokens)

    @classmethod
    def _build(
        cls,
        cuts: Iterable[Description],
        share_copies: bool,
        count_tokens: CountTokens | None,
    ) -> "CutIndex":
        cut_keys, utterance_keys, durations = array("Q"), array("Q"), array("d")
        frames, tokens = array("i"), TokenCounter(count_tokens) if count_tokens else None
        codes = {name: array("i") for name in _FIELDS}
        numbers: dict[str, dict[str, int]] = {name: {} for name in _FIELDS}
        for cut in tqdm(cuts, desc="index of cuts", unit="cut", delay=5, disable=None):
            if not 0 < cut.duration < 1e6:
                raise UserError(
                    f"cut {cut.id!r} has a duration of {cut.duration} seconds. A duration must be "
                    "above 0 and below 1e6 seconds. Correct or remove the cut."
                )
            cut_keys.extend(hash_pair(cut.id))
            utterance_keys.extend(hash_pair(utterance_id(cut.id) if share_copies else cut.id))
            durations.append(cut.duration)
            frames.append(cut.num_frames)
            if tokens:
                tokens.add(cut.text)
            for name in _FIELDS:
                value = getattr(cut, name)
                codes[name].append(numbers[name].setdefault(value, len(numbers[name])))
        cut_key = np.frombuffer(cut_keys, np.uint64).reshape(-1, 2)
        check_distinct(cut_key)
        ids_hash, utterance = number_ids(np.frombuffer(utterance_keys, np.uint64).reshape(-1, 2))
        groups = {
            name: (np.frombuffer(codes[name], np.int32), list(numbers[name]))
            for name in _FIELDS
            if list(numbers[name]) not in ([""], [])
        }
        return cls(
            cut_key[:, 0],
            np.frombuffer(durations, np.float64),
            utterance,
            ids_hash,
            groups,
            share_copies,
            np.frombuffer(frames, np.int32),
            tokens.finish() if tokens else None,
        )

    def find_cuts(self, ids: Sequence[str], exact: bool = False) -> np.ndarray:
        """Return the lines (n,) int64 of the cuts with these ids; -1 for an unknown id.

        An unknown id is looked up again without its suffixes, as the id of a copy. The suffixes are
        those of cuts that lhotse or the sampler repeats within an epoch. If copies share a score,
        suffixes of perturbed copies, such as ``_sp0.9``, are taken off too.

        Args:
            ids: the ids of the cuts.
            exact: whether ids are looked up only as they are, with their suffixes.
        """
        if self._cut_order is None:
            self._cut_order = np.argsort(self.cut_hash).astype(np.int32)
        readings = READINGS[:1] if exact else self._readings
        return find_ids(ids, self.cut_hash, self._cut_order, readings)

    def find_utterances(self, ids: Sequence[str]) -> np.ndarray:
        """Return the utterances (n,) int64 of the cuts with these ids; -1 for an unknown id.

        Unknown ids are looked up as those of copies, as in `find_cuts`.
        """
        if self._utterance_order is None:
            self._utterance_order = np.argsort(self.ids_hash).astype(np.int32)
        return find_ids(ids, self.ids_hash, self._utterance_order, self._readings)

    def cuts_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the lines (n,) int64 of the cuts with these ids, as `find_cuts` does.

        Raises:
            UserError: an id is unknown.
        """
        return all_found(ids, self.find_cuts(ids))

    def language_of(self, cut_id: str) -> int:
        """Return the number of a cut's language among the languages of `groups`.

        Raises:
            UserError: the id is unknown.
        """
        [line] = self.cuts_of([cut_id])
        return int(self.groups["language"][0][line])

    def utterances_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the utterances (n,) int64 of the cuts with these ids, as `find_utterances` does.

        Raises:
            UserError: an id is unknown.
        """
        return all_found(ids, self.find_utterances(ids))

    @property
    def _readings(self) -> Sequence[Callable[[str], str]]:
        return [*READINGS, *[copied_once] * self.share_copies]

    def strata(self, count: int, stratify_by: str = "") -> np.ndarray:
        """Return the duration stratum (N,) of each cut; 0 has the shortest cuts.

        The strata have about equally many cuts. Cuts of equal duration are in one stratum. The
        type is the smallest unsigned one, mostly uint8.

        Args:
            count: number of strata.
            stratify_by: a grouping of `groups`. Each group then has ``count`` strata of its own,
                numbered group after group. "": the strata are of all cuts together.
        """
        key = count, stratify_by
        if key in self._strata:
            return self._strata[key]
        if not stratify_by:
            self._strata[key] = _classes(self.duration, count)
            return self._strata[key]
        groups, names = self.groups[stratify_by]
        strata = np.empty(len(self), np.min_scalar_type(max(count * len(names) - 1, 1)))
        for number in range(len(names)):
            mine = groups == number
            strata[mine] = _classes(self.duration[mine], count) + strata.dtype.type(number * count)
        self._strata[key] = strata
        return strata

    def stratum_seconds(self, count: int, stratify_by: str = "") -> np.ndarray:
        """Return the seconds of audio of each of the `strata`, (strata,) float64.

        A ``count`` of 0 counts as 1: one stratum for all durations.
        """
        key = count, stratify_by
        if key not in self._seconds:
            seconds = np.zeros(self.num_strata(count, stratify_by))
            for part in chunks(len(self)):
                codes = np.zeros(1, np.uint8)
                if len(seconds) > 1:
                    codes = self.strata(max(count, 1), stratify_by)[part]
                codes = np.broadcast_to(codes, part.stop - part.start)
                seconds += np.bincount(codes, self.duration[part], len(seconds))
            self._seconds[key] = seconds
        return self._seconds[key]

    def num_strata(self, count: int, stratify_by: str = "") -> int:
        """Return the number of `strata`. A ``count`` of 0 counts as 1."""
        return max(count, 1) * (len(self.groups[stratify_by][1]) if stratify_by else 1)

    def duration_bins(self, count: int) -> list[float]:
        """Return the edges of buckets that hold about equally many seconds of audio.

        This is lhotse's rule (`estimate_duration_buckets`), but over all cuts instead of the first
        ten thousand, with durations in multiples of 1/1024 s. A corpus with few different durations
        gives equal edges. Equal edges become one edge.

        Args:
            count: maximum number of buckets; there are never more buckets than cuts.

        Returns:
            At most ``count - 1`` edges in seconds, strictly rising.
        """
        count = min(count, len(self))
        if count < 2:
            return []
        seconds = np.sort(self.duration)
        before = np.cumsum(seconds, dtype=np.float64) - seconds  # exact: multiples of 1/1024
        whole, start = before[-1] + float(seconds[-1]), 0
        edges: list[float] = []
        while True:
            # a bucket is full as soon as its cuts hold more than its share of the seconds
            start = int(np.searchsorted(before, before[start] + whole / count, side="right"))
            if start == len(seconds):
                return sorted(set(edges))
            edges.append(float(seconds[start]))

    def check_digest(self, saved: str) -> None:
        """Check that a saved state belongs to the cuts of this index.

        Args:
            saved: the digest in the saved state.

        Raises:
            UserError: the cuts of the saved state have other ids, durations or utterances, or
                another order.
        """
        if saved != self.digest:
            raise UserError(
                f"the saved scores and keep-sets belong to another training manifest (digest "
                f"{saved}, and {self.digest} here). The cuts, their order, their "
                "durations or data_pruning.share_copies differ. Restore them, or train in a new "
                "folder."
            )

    def _digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self.cut_hash.astype("<u8", copy=False).data)
        digest.update(self.duration.astype("<f4", copy=False).data)
        digest.update(self.utterance.astype("<i4", copy=False).data)
        return digest.hexdigest()


def _classes(duration: np.ndarray, count: int) -> np.ndarray:
    """Return the class (N,) uint8 of each duration, in ``count`` classes of about equal size."""
    codes = np.zeros(len(duration), np.uint8)
    if count < 2 or not len(duration):
        return codes
    positions = np.arange(1, count) * len(duration) // count
    edges = np.unique(np.partition(duration, positions)[positions])
    for part in chunks(len(duration)):
        codes[part] = np.searchsorted(edges, duration[part], side="right")
    return codes


def chunks(count: int, size: int = 1 << 17) -> Iterator[slice]:
    """Yield slices of ``count`` items, small enough for temporary arrays to fit in the CPU's cache.

    Args:
        count: number of items.
        size: items of a slice; the last slice may be shorter.
    """
    for start in range(0, count, size):
        yield slice(start, min(count, start + size))
