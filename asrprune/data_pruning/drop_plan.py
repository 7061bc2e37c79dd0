"""Which frames of a sequence are dropped, and how many stay: pure functions of a key.

A plan has two uniform draws of its key, (seed, cycle, cut id). They decide how many frames stay, so
that the lengths of all cuts of an index are one computation over arrays. `plan_drop` asks the same
computation for its one cut, and then draws which of equal pieces go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrprune.data_pruning.index import hash_id
from asrprune.errors import UserError, nearest
from asrprune.randomness import keyed_generator, keyed_uniforms

VARIANTS = ("chunk", "span", "point")


class Drop(NamedTuple):
    """What stays of a sequence: ``keep`` (length,) bool, and whether ``least`` limited the drop."""

    keep: Tensor
    clamped: bool


class Counts(NamedTuple):
    """How N sequences are cut into pieces, and how much of them stays. Arrays (N,)."""

    size: np.ndarray  # frames of a piece
    units: np.ndarray  # pieces of the sequence; the last may be partial
    dropped: np.ndarray  # pieces that go
    tail: np.ndarray  # whether the last piece is one of them
    left: np.ndarray  # frames that stay
    clamped: np.ndarray


def plan_drop(
    length: int,
    drop_ratio: float,
    key: Sequence[int | str],
    *,
    variant: str = "chunk",
    chunk: int = 20,
    least: int = 1,
) -> Drop:
    """Draw which frames of a sequence stay; a pure function of its arguments.

    The sequence is cut into M pieces, of ``chunk`` frames for the variant ``chunk`` (the last may
    be partial) and of one frame otherwise. ``drop_ratio * M`` pieces go, the fraction rounded up
    with its own probability. ``drop_ratio`` is thus the expected share where nothing is clamped.
    The pieces are drawn without replacement. The variant ``span`` takes them in one stretch.

    The grid of the chunks begins at a random frame, and goes on at the sequence's start where it
    comes to the end. A chunk that lies across the end thus drops frames of both ends.

    Args:
        length: frames of the sequence.
        drop_ratio: share of frames that goes, 0 <= drop_ratio < 1.
        key: what the draw belongs to, such as ``(seed, cycle, cut id)``; the cut id comes last.
        variant: ``chunk``, ``span`` or ``point``.
        chunk: frames of a piece, for the variant ``chunk``.
        least: frames that must stay, such as one encoder frame for each token; at least 1. Fewer
            pieces go if as many whole ones would leave less.

    Raises:
        UserError: ``drop_ratio``, ``variant``, ``chunk`` or ``length`` is out of its limits.
    """
    position, counts = _draw(length, drop_ratio, key, variant, chunk, least)
    size, units, dropped, tail, _, clamped = (values.item() for values in counts)
    keep = torch.ones(units, dtype=torch.bool)
    if variant == "span":
        start = int(position * (units - dropped + 1))
        keep[start : start + dropped] = False
    elif dropped:
        # the counts decided on the last piece; the others are alike
        keep[-1] = not tail
        pieces = keyed_generator("time-dropping", *key)
        keep[torch.randperm(units - 1, generator=pieces)[: dropped - tail]] = False
        if size > 1:
            begin = int(torch.randint(length, (), generator=pieces))
            return Drop(keep.repeat_interleave(size)[:length].roll(begin), clamped)
    return Drop(keep.repeat_interleave(size)[:length], clamped)


def lengths_left(
    lengths: np.ndarray,
    drop_ratio: float,
    key: Sequence[int | str],
    cut_hash: np.ndarray,
    *,
    variant: str = "chunk",
    chunk: int = 20,
    least: np.ndarray | int = 1,
) -> np.ndarray:
    """Return how many frames `plan_drop` leaves of each of N sequences, (N,) int64.

    Args:
        lengths: (N,) frames of the sequences.
        drop_ratio: as of `plan_drop`.
        key: the key without the cut id, such as ``(seed, cycle)``.
        cut_hash: (N,) uint64, the `hash_id` of each cut id.
        variant: as of `plan_drop`; so is ``chunk``.
        least: (N,) frames that must stay, or one number for all.

    Raises:
        UserError: as `plan_drop`.
    """
    _check(drop_ratio, variant, chunk)
    draws = keyed_uniforms(cut_hash, "time-dropping", *key)
    return count_pieces(np.asarray(lengths), drop_ratio, variant, chunk, least, *draws).left


def count_pieces(
    lengths: np.ndarray,
    drop_ratio: float,
    variant: str,
    chunk: int,
    least: np.ndarray | int,
    coin: np.ndarray | float,
    position: np.ndarray | float,
) -> Counts:
    """Count the pieces that go, from two uniform draws in [0, 1) for each sequence.

    ``coin`` rounds the number of pieces. ``position`` says whether the last piece goes, with the
    probability that a draw without replacement gives it. The last piece may be partial.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    size = (
        np.minimum(chunk, np.maximum(lengths, 1)) if variant == "chunk" else np.ones_like(lengths)
    )
    units = -(-lengths // size)
    asked = drop_ratio * units
    dropped = asked.astype(np.int64)
    dropped = dropped + (coin < asked - dropped)
    maximum = np.maximum(lengths - np.maximum(least, 1), 0) // size
    clamped = dropped > maximum
    dropped = np.minimum(dropped, maximum)
    tail = position * units < dropped
    left = lengths - dropped * size + tail * (units * size - lengths)
    return Counts(size, units, dropped, tail, left, clamped)


def _draw(
    length: int, drop_ratio: float, key: Sequence[int | str], variant: str, chunk: int, least: int
) -> tuple[float, Counts]:
    """Return the second uniform draw of a cut, and the counts of its sequence.

    Raises:
        UserError: an argument is out of its limits.
    """
    _check(drop_ratio, variant, chunk)
    if length < 0:
        raise UserError(f"length={length}: must not be negative")
    *shared, cut_id = key
    coin, position = keyed_uniforms(hash_id(str(cut_id)), "time-dropping", *shared)
    return position, count_pieces(
        np.array(length), drop_ratio, variant, chunk, least, coin, position
    )


def _check(drop_ratio: float, variant: str, chunk: int) -> None:
    """Check what does not depend on the sequence.

    Raises:
        UserError: an argument is out of its limits.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"variant={variant}: choose one of {', '.join(VARIANTS)}{nearest(variant, VARIANTS)}"
        )
    check_share(drop_ratio)
    if chunk < 1:
        raise UserError(f"chunk={chunk}: must be at least 1 frame")


def check_share(drop_ratio: float) -> None:
    """Check that ``drop_ratio`` is a share, and not all.

    Raises:
        UserError: it is not.
    """
    if not 0 <= drop_ratio < 1:
        raise UserError(f"drop_ratio={drop_ratio}: must be at least 0 and below 1")
