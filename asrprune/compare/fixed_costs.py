"""Columns of a table for the costs of a training that do not shrink with its data."""

from collections.abc import Iterable

from asrprune.compare.markup import percent, seconds
from asrprune.compare.rows import Row

FIXED_COSTS = ("padding", "waiting for batches", "start and end, s")
FIXED_COSTS_LEGEND = (
    "*Padding*: the share of feature frames in batches that are padding. *Waiting for batches*: "
    "the share of the epochs' wall-clock time in which steps wait for their batch. *Start and "
    "end*: seconds of the training outside of its epochs."
)


def fixed_costs(row: Row) -> Iterable[str]:
    """Yield the values of a row in the columns `FIXED_COSTS`."""
    yield from map(percent, (row.mean("padding"), row.waiting()))
    yield seconds(row.start_and_end())
