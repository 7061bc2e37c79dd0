"""Columns of a table that show which costs of a training do not shrink with its data."""

from collections.abc import Iterable

from asrprune.studies.markup import percent, seconds
from asrprune.studies.rows import Row

FIXED_COSTS = ("padding", "waiting for batches", "start and end, s")
FIXED_COSTS_LEGEND = (
    "*Padding*: share of the feature frames in batches. *Waiting for batches*: share of the "
    "wall-clock time of all epochs. *Start and end*: seconds of the training outside of its epochs."
)


def fixed_costs(row: Row) -> Iterable[str]:
    """Yield the cells of `FIXED_COSTS`."""
    yield from map(percent, (row.mean("padding"), row.waiting()))
    yield seconds(row.start_and_end())
