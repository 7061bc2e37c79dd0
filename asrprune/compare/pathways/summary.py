"""The rows of a comparison of models of several languages, and the costs of each method."""

from collections.abc import Sequence

from asrprune.compare.pathways.grid import LanguagesCell
from asrprune.compare.pathways.options import ALL
from asrprune.compare.rows import Row
from asrprune.compare.study import Record


class Summary:
    """Rows by method and language. A row of `ALL` has the utterances of all languages."""

    def __init__(self, cells: Sequence[LanguagesCell], records: Sequence[Record]):
        """Sort the records into rows by method and language.

        Args:
            cells: all cells of the grid.
            records: the records of these cells.
        """
        self.rows: dict[tuple[str, str], Row] = {}
        self.languages = list(dict.fromkeys(name for cell in cells for name in cell.languages))
        self._cells = {cell.name: cell for cell in cells}
        self._of: dict[str, Record] = {}  # one record of each training
        for record in records:
            key = record["method"], record["language"]
            self.rows.setdefault(key, Row({})).records[record["seed"]] = record
            self._of.setdefault(record["training"], record)
        for method in self.methods:
            parts = [self.rows.get((method, language)) for language in self.languages]
            seeds = set.intersection(*(set(part.records) if part else set() for part in parts))
            if seeds:
                whole = {seed: _together([part.records[seed] for part in parts]) for seed in seeds}
                self.rows[method, ALL] = Row(dict(sorted(whole.items())))

    @property
    def methods(self) -> list[str]:
        """The methods that have records, in the order of the grid."""
        found = {method for method, _ in self.rows}
        order = dict.fromkeys(cell.method for cell in self._cells.values())
        return [method for method in order if method in found]

    def models(self, method: str) -> int:
        """Return how many models a method trains to cover all languages."""
        names = {cell.name for cell in self._cells.values() if cell.method == method}
        return len(names) // len({self._cells[name].seed for name in names})

    def hours(self, method: str, *, with_sources: bool = True) -> dict[int, float]:
        """Return seed -> hours of speech of a method's trainings.

        Args:
            method: the name of the method.
            with_sources: whether to add the trainings from which weights and masks come. Sources
                that start from nothing are left out.
        """
        return self._sums("hours", method, with_sources)

    def cpu_seconds(self, method: str) -> dict[int, float]:
        """Return seed -> CPU seconds of a method's own trainings.

        Seeds with a training that was stopped are left out.
        """
        return self._sums("cpu_seconds", method, False)

    def corpus_hours(self) -> float:
        """Return the hours of the training set."""
        return next(iter(self._of.values()))["corpus_hours"]

    def _sums(self, name: str, method: str, with_sources: bool) -> dict[int, float]:
        """Return seed -> sum over a method's trainings, for seeds with all trainings run."""
        names: dict[int, set[str]] = {}
        for cell in self._cells.values():
            if cell.method == method:
                more = [source for source, _ in cell.lineage] if with_sources else []
                own = {cell.name, *(one for one in more if self._cells[one].after)}
                names.setdefault(cell.seed, set()).update(own)
        return {
            seed: sum(self._of[one][name] for one in sorted(some))
            for seed, some in names.items()
            if some <= self._of.keys() and (name == "hours" or self._undisturbed(some))
        }

    def _undisturbed(self, names: set[str]) -> bool:
        return all(self._of[name]["attempts"] == 1 for name in names)


def _together(records: Sequence[Record]) -> Record:
    """Return a record with the errors and speakers of several languages.

    A speaker with two languages counts as two speakers.
    """
    sums = ("words", "errors", "insertions", "deletions", "substitutions")
    return {
        **{name: sum(record[name] for record in records) for name in sums},
        "speakers": {
            f"{record['language']} {name}": counts
            for record in records
            for name, counts in record["speakers"].items()
        },
        "attempts": max(record["attempts"] for record in records),
        "density": sum(record["density"] for record in records) / len(records),
        "union_density": records[0]["union_density"],
        "overlaps": records[0]["overlaps"],
    }
