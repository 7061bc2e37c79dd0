"""Measures the milliseconds of a search: before it, and again for its chosen sub-networks."""

import logging
from pathlib import Path
from typing import Any

from asrprune.export.budget import MILLISECONDS
from asrprune.export.milliseconds import Times, known_times, time_networks
from asrprune.export.source import Source

log = logging.getLogger(__name__)


def times_of(source: Source, exp_dir: Path, log_path: Path | None) -> Times:
    """Return the times of a model on this machine.

    The times are kept in a file beside the log of the evaluations. So the same search, when it goes
    on, and another search of the model have the same costs.

    Args:
        source: the model.
        exp_dir: the folder of the search.
        log_path: the file of the evaluations, if the user named one.

    Raises:
        UserError: see `asrprune.export.milliseconds.known_times`.
    """
    path = exp_dir / "search" / f"{source.digest[:8]}.times.json"
    if log_path:
        path = log_path.with_suffix(".times.json")
    return known_times(path, source.model, source.bank, source.sparsest, source.digest)


def add_times(record: dict[str, Any], times: Times, source: Source) -> None:
    """Add measured times to the record of a search.

    ``times`` holds the times that the estimates are based on. Each chosen sub-network gets
    ``measured_milliseconds``. It is timed as a whole, in turn with the dense network. The dense
    network's time is ``times.dense``.

    Args:
        record: the content of a ``pareto.json``.
        times: the times of uniform sub-networks.
        source: the model.
    """
    networks = [one["best"] for one in record["budgets"]]
    choices = [0.0, *(network["sparsities"] for network in networks)]
    dense, *found = time_networks(source.model, source.bank, choices)
    record["times"] = {
        "for": times.what,
        "sparsities": times.sparsities,
        "milliseconds": times.milliseconds,
        "dense": dense,
    }
    for network, took in zip(networks, found, strict=True):
        network["measured_milliseconds"] = took
        log.info(
            "%.3f ms for %s were estimated, and %.3f ms are measured; dense: %.3f ms",
            network[MILLISECONDS],
            times.what,
            took,
            dense,
        )
