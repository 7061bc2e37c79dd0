"""The rows of a comparison of sparse models, one for each method and sparsity."""

from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.compare.rows import Row
from asrprune.compare.study import Record
from asrprune.compare.weight_pruning.options import FOUND, ONE_SHOT

Key = tuple[str, float]  # method, sparsity


@dataclass
class NetworkRow(Row):
    """Networks of one method and one sparsity, on one test set."""

    method: str
    sparsity: float

    def in_runtime(self, kind: str) -> Row | None:
        """Return what the networks do in sherpa-onnx, in float32 or int8; None if they do not run.

        Args:
            kind: one of `asrprune.export.in_turn.KINDS`.
        """
        runs = {seed: record.get("runtime") for seed, record in self.records.items()}
        found = {seed: run[kind] for seed, run in runs.items() if run and kind in run}
        return Row(found) if found else None


class Summary:
    """The rows of one test set.

    Where a method trains each sparsity by itself, its row of sparsity 0 is the dense model's row.
    """

    def __init__(self, records: Sequence[Record], test_set: str):
        self.rows: dict[Key, NetworkRow] = {}
        for record in records:
            if record["set"] == test_set:
                key = record["method"], record["sparsity"]
                self.rows.setdefault(key, NetworkRow({}, *key)).records[record["seed"]] = record
        for method in self.methods if self.dense else ():
            if method not in FOUND:
                self.rows.setdefault((method, 0.0), self.dense)

    @property
    def dense(self) -> NetworkRow | None:
        """The row of the dense model: *one_shot* at sparsity 0. None if it has not been run."""
        return self.rows.get((ONE_SHOT, 0.0))

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the records."""
        return list(dict.fromkeys(method for method, _ in self.rows))

    @property
    def sparsities(self) -> list[float]:
        """The sparsities, ascending."""
        return sorted({sparsity for _, sparsity in self.rows})
