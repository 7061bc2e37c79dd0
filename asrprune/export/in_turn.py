"""Run exported networks in turn in sherpa-onnx, and compute their cost for the benchmarks.

The speed of a machine changes over time. So all networks recognise an utterance before the next
utterance comes. A slow phase of the machine then slows all networks alike. Times are CPU seconds of
this process. They do not contain the time that other processes take.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from asrprune.export.sherpa import Heard, Recognised, Recogniser

FLOAT32, INT8 = "float32", "int8"
KINDS = (FLOAT32, INT8)
CHUNK, SECOND = "chunk", "second of speech"  # the milliseconds are for one of these

Runs = tuple[str, str]
"""Name of a network, and one of the types `KINDS`."""


def load_in_turn(networks: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[Runs, Recogniser]:
    """Load networks into sherpa-onnx on one thread, in float32 and, if int8 files exist, in int8.

    Args:
        networks: what ``export.json`` says of each network, by the network's name.
        folder: the folder of ``export.json``.

    Raises:
        UserError: see `Recogniser`.
    """
    return {
        (name, kind): Recogniser(folder / name, kind == INT8)
        for name, about in networks.items()
        for kind in KINDS
        if kind == FLOAT32 or any(".int8." in file for file in about["files"])
    }


def hear_in_turn(
    recognisers: Mapping[Runs, Recogniser], utterances: Iterable[np.ndarray]
) -> dict[Runs, list[Recognised]]:
    """Return what each network recognises in each utterance (n,), in the order of the utterances.

    All networks recognise an utterance before the next utterance comes. Networks for streaming
    receive the utterance in pieces.
    """
    found: dict[Runs, list[Recognised]] = {runs: [] for runs in recognisers}
    for samples in utterances:
        for runs, recogniser in recognisers.items():
            hear = recogniser.listen if recogniser.streaming else recogniser.recognise
            found[runs].append(hear(samples))
    return found


def milliseconds(found: Sequence[Recognised], seconds: Sequence[float]) -> dict[str, Any]:
    """Return the CPU time of a chunk; of a second of speech if the networks take no chunks.

    Args:
        found: the results of each utterance.
        seconds: the duration of each utterance.

    Returns:
        ``milliseconds``, the median over all chunks, or over all utterances; and ``per``.
    """
    chunks = [chunk for one in found if isinstance(one, Heard) for chunk in one.chunks]
    if chunks:
        return {"milliseconds": 1e3 * median(chunks), "per": CHUNK}
    costs = [one.cpu / duration for one, duration in zip(found, seconds, strict=True)]
    return {"milliseconds": 1e3 * median(costs), "per": SECOND}


def with_ratios(rows: Sequence[dict[str, Any]], whole: str) -> list[dict[str, Any]]:
    """Add to each row its bytes and its time divided by those of one network of the same type.

    Args:
        rows: each row has ``network`` and ``runs``; measured rows have ``bytes`` and
            ``milliseconds``.
        whole: name of the network to divide by. Without this network, no ratios are added.
    """
    wholes = {row["runs"]: row for row in rows if row["network"] == whole and "bytes" in row}
    return [
        {
            **row,
            "bytes_of_whole": row["bytes"] / wholes[row["runs"]]["bytes"],
            "time_of_whole": row["milliseconds"] / wholes[row["runs"]]["milliseconds"],
        }
        if "bytes" in row and row["runs"] in wholes
        else row
        for row in rows
    ]


def texts_path(folder: Path, test_set: str, name: str, runs: str) -> Path:
    """Return the file of the texts that a network recognises in a test set.

    Args:
        folder: the folder of ``export.json``.
        test_set: name of the set.
        name: name of the network.
        runs: one of `KINDS`, or ``ours`` for the texts of our own decoder.
    """
    return folder / f"recogs-{test_set}-{name}-{runs}.txt"


def headed(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns; the name of "milliseconds" then says what the milliseconds are for."""
    per = next((row["per"] for row in rows if "per" in row), CHUNK)
    return tuple(f"ms a {per}" if name == "milliseconds" else name for name in columns)


def number(value: float | None, factor: float, digits: str, unit: str = "") -> str:
    """Return a cell of a table; an empty cell without a value."""
    return "" if value is None else f"{value * factor:{digits}}{unit}"
