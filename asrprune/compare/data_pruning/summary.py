"""The rows of a comparison of data pruning, one for each method and keep ratio."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.compare.data_pruning.options import FULL, RANDOM
from asrprune.compare.pace import at_one_pace
from asrprune.compare.rows import Row, common_seeds, ratio, timed_seeds
from asrprune.compare.study import Record

Key = tuple[str, float]  # method, keep


@dataclass
class KeepRow(Row):
    """One method at one keep ratio, on one test set."""

    method: str
    keep: float

    @property
    def trains_on_everything(self) -> bool:
        """Whether no cut and no time is dropped: full data, for all epochs or for fewer."""
        return all(
            record["data_pruning"]["policy"] == FULL
            and record["data_pruning"]["time"]["variant"] == "none"
            for record in self.records.values()
        )


class Summary:
    """The rows of one test set, and the comparisons of rows with controls."""

    def __init__(self, records: Sequence[Record], test_set: str):
        self.rows: dict[Key, KeepRow] = {}
        of_set = [record for record in records if record["set"] == test_set]
        for record in at_one_pace(of_set, _key):
            key = _key(record)
            self.rows.setdefault(key, KeepRow({}, *key)).records[record["seed"]] = record

    @property
    def full(self) -> KeepRow | None:
        """The row of full data; None if it has not been run."""
        return self.rows.get((FULL, 1.0))

    def random(self, row: KeepRow) -> KeepRow | None:
        """Return the row of random keep-sets, drawn anew in each cycle, at the row's keep ratio."""
        return self.rows.get((RANDOM, row.keep))

    def compressed(self, row: KeepRow) -> KeepRow | None:
        """Return the row of full data for fewer epochs whose audio is nearest to the row's.

        Rows that lack one of the row's seeds do not count. The result is None for a row of full
        data, and if there is no such row.
        """
        if row.trains_on_everything or self.full is None:
            return None
        hours = row.mean("hours") or 0.0
        found = [
            other
            for other in self.rows.values()
            if other.trains_on_everything
            and other.mean("epochs") < self.full.mean("epochs")
            and set(row.records) <= set(other.records)
        ]
        return min(found, key=lambda other: abs(other.mean("hours") - hours), default=None)

    def ceiling(self, row: KeepRow) -> float | None:
        """Return the audio of full data over the row's audio, which limits the speed-up."""
        seeds = common_seeds(row, self.full)
        return ratio(self.full, row, "hours", seeds) if seeds else None

    def speed_up(self, row: KeepRow, of: str = "seconds") -> float | None:
        """Return the time of full data's training over the row's.

        Only seeds count for which both times can be compared.
        """
        seeds = timed_seeds(row, self.full)
        return ratio(self.full, row, of, seeds) if seeds else None


def shown_keep(summary: Summary, row: KeepRow) -> str:
    """Return a row's keep ratio. Full data for fewer epochs keeps all cuts, and has its epochs."""
    if row is summary.full or not row.trains_on_everything:
        return f"{row.keep:g}"
    return f"1 for {row.mean('epochs'):g} epochs"


def _key(record: Record) -> Key:
    return record["method"], record["keep"]
