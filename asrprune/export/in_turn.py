"""Exported networks that take turns in sherpa-onnx, and what the benchmarks say of their cost.

A machine computes faster at one time than at another. So that this falls on all networks alike,
each utterance is heard by all networks before the next utterance is. Times are CPU seconds of this
process, in which the time that other processes take is not counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from asrprune.export.sherpa import Heard, Recognised, Recogniser

FLOAT32, INT8 = "float32", "int8"
KINDS = (FLOAT32, INT8)
CHUNK, SECOND = "chunk", "second of speech"  # what milliseconds are measured for

Runs = tuple[str, str]
"""Name of a network, and one of `KINDS`."""


def load_in_turn(networks: Mapping[str, Mapping[str, Any]], folder: Path) -> dict[Runs, Recogniser]:
    """Load networks into sherpa-onnx, on one thread, in float32 and where it was written in int8.

    Args:
        networks: what ``export.json`` says of each, by its name.
        folder: of ``export.json``.

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
    """Return what each network hears in each utterance (n,), in the order of the utterances.

    Each utterance is heard by all networks before the next one is. Networks for streaming hear it
    in pieces.
    """
    found: dict[Runs, list[Recognised]] = {runs: [] for runs in recognisers}
    for samples in utterances:
        for runs, recogniser in recognisers.items():
            hear = recogniser.listen if recogniser.streaming else recogniser.recognise
            found[runs].append(hear(samples))
    return found


def milliseconds(found: Sequence[Recognised], seconds: Sequence[float]) -> dict[str, Any]:
    """Return the CPU time of a chunk, or of a second of speech where nothing came in chunks.

    Args:
        found: what was heard in each utterance.
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
    """Add the bytes and the time of each row over those of a network of the same type.

    Args:
        rows: each has ``network`` and ``runs``; measured ones have ``bytes`` and ``milliseconds``.
        whole: name of the network to divide by. Without it, no ratios are added.
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


def headed(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns, with "milliseconds" naming what they are measured for."""
    per = next((row["per"] for row in rows if "per" in row), CHUNK)
    return tuple(f"ms a {per}" if name == "milliseconds" else name for name in columns)


def number(value: float | None, factor: float, digits: str, unit: str = "") -> str:
    """Return a cell of a table, empty without a value."""
    return "" if value is None else f"{value * factor:{digits}}{unit}"
