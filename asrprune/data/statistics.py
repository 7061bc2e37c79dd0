"""Compute statistics of a cut set: size, speakers, words, durations, duration bins and digest."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class CutStatistics:
    """Collect the statistics of a cut set, cut by cut. No text is kept, to save memory."""

    def __init__(self) -> None:
        self.durations: list[float] = []  # seconds
        self.words = 0
        self._speakers: set[str] = set()
        self._vocabulary: set[str] = set()
        self._keys: list[bytes] = []

    def add(self, cut_id: str, duration: float, text: str, speaker: str) -> None:
        """Add a cut to the statistics."""
        words = text.split()
        self.durations.append(duration)
        self.words += len(words)
        self._vocabulary.update(words)
        if speaker:
            self._speakers.add(speaker)
        self._keys.append(_key(cut_id, duration, text))

    def digest(self, order: Sequence[int] | None = None) -> str:
        """Return a digest of the sequence of (id, duration, text).

        The digest depends on the order, because the order decides which cuts a sampler puts
        together.

        Args:
            order: Indices of the cuts in the order of writing; None: the order of arrival.
        """
        keys = self._keys if order is None else [self._keys[index] for index in order]
        return hashlib.blake2b(b"".join(keys), digest_size=16).hexdigest()

    def to_dict(self, order: Sequence[int] | None = None) -> dict[str, Any]:
        """Return all statistics as plain values; ``order`` is that of :meth:`digest`."""
        durations = np.sort(np.array(self.durations, dtype=np.float64))
        return {
            "cuts": len(durations),
            "seconds": round(float(durations.sum()), 3),
            "speakers": len(self._speakers),
            "words": self.words,
            "vocabulary": len(self._vocabulary),
            "quantiles": {
                f"{q:g}": round(float(np.quantile(durations, q)), 4) if len(durations) else 0.0
                for q in QUANTILES
            },
            "digest": self.digest(order),
        }


def duration_bins(durations: Sequence[float], num_bins: int) -> list[float]:
    """Return the boundaries between at most ``num_bins`` bins of about equal total duration.

    The rule is that of lhotse, but over *all* cuts. lhotse's samplers use only the first 10,000
    cuts. Equal boundaries, as in corpora of few durations, become one boundary.

    Returns:
        At most ``num_bins - 1`` boundaries in seconds, strictly increasing.
    """
    num_bins = min(num_bins, len(durations))
    if num_bins < 2:
        return []
    bins = estimate_duration_buckets(durations, num_bins, constraint=_Seconds())
    return sorted({float(boundary) for boundary in bins})


def table(statistics: dict[str, Any]) -> str:
    """Return the statistics as a text table with one column per set."""
    sets = {"train": statistics["train"], **statistics["eval"]}
    rows = [("", list(sets))]
    for name, show in (
        ("cuts", lambda s: f"{s['cuts']:,}"),
        ("hours", lambda s: f"{s['seconds'] / 3600:,.2f}"),
        ("speakers", lambda s: f"{s['speakers']:,}"),
        ("words", lambda s: f"{s['words']:,}"),
        ("vocabulary", lambda s: f"{s['vocabulary']:,}"),
        ("words a second", lambda s: f"{s['words'] / max(s['seconds'], 1e-9):.2f}"),
    ):
        rows.append((name, [show(values) for values in sets.values()]))
    for q in QUANTILES:
        label = {0.0: "shortest (s)", 0.5: "median (s)", 1.0: "longest (s)"}.get(q, f"{q:.0%} (s)")
        rows.append((label, [f"{values['quantiles'][f'{q:g}']:.2f}" for values in sets.values()]))
    widths = [max(len(row[1][column]) for row in rows) for column in range(len(sets))]
    lines = [
        f"{name:<16}" + "".join(f"  {value:>{w}}" for value, w in zip(values, widths, strict=True))
        for name, values in rows
    ]
    return "\n".join(lines) + "\n"


class _Seconds:
    """Give lhotse the length of an item, where the items are durations already."""

    @staticmethod
    def measure_length(duration: float) -> float:
        return duration


def _key(cut_id: str, duration: float, text: str) -> bytes:
    content = f"{cut_id}\t{duration!r}\t{text}"
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
