"""Decide which frames of a sequence are dropped, and how many stay, by a random key.

The key of a plan is (seed, cycle, cut id). It gives two uniform draws, which decide how many frames
stay. The lengths of all cuts of an index are therefore one computation over arrays. `plan_drop`
does the same computation for one cut, and then draws which of the equally long pieces are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asrprune.base.errors import UserError, nearest
from asrprune.base.randomness import keyed_generator, keyed_uniforms
from asrprune.data_pruning.ids import hash_id

VARIANTS = ("chunk", "point")


class Drop(NamedTuple):
    """The frames of a sequence that stay."""

    keep: Tensor  # (length,) bool
    clamped: bool  # whether ``least`` limited the drop


class Counts(NamedTuple):
    """How N sequences are cut into pieces, and how many frames stay. Arrays are (N,)."""

    size: np.ndarray  # frames of a piece
    pieces: np.ndarray  # pieces of the sequence; the last piece may be shorter
    dropped: np.ndarray  # pieces that are dropped
    tail: np.ndarray  # whether the last piece is dropped
    left: np.ndarray  # frames that stay
    clamped: np.ndarray  # whether ``least`` limited the drop


def plan_drop(
    length: int,
    drop_ratio: float,
    key: Sequence[int | str],
    *,
    variant: str = "chunk",
    chunk: int = 20,
    least: int = 1,
) -> Drop:
    """Draw which frames of a sequence stay. The result is a pure function of the arguments.

    The sequence is cut into M pieces. With the variant ``chunk`` a piece has ``chunk`` frames, and
    the last piece may be shorter. With the variant ``point`` a piece is one frame. The number of
    dropped pieces is ``drop_ratio * M``, rounded up or down at random. The probability of rounding
    up is the fractional part, so the expected share is ``drop_ratio`` unless ``least`` limits the
    drop. The pieces are drawn without replacement.

    The grid of chunks begins at a random frame, and continues at the start of the sequence after
    its end. A chunk that lies across the end therefore drops frames at both ends.

    Args:
        length: frames of the sequence.
        drop_ratio: share of the frames to drop, 0 <= drop_ratio < 1.
        key: key of the draw, such as ``(seed, cycle, cut id)``; the cut id comes last.
        variant: ``chunk`` or ``point``.
        chunk: frames of a piece, for the variant ``chunk``.
        least: frames that must stay, such as one encoder frame for each token; at least 1. If
            fewer frames would stay, fewer pieces are dropped.

    Returns:
        The plan of the sequence.

    Raises:
        UserError: ``drop_ratio``, ``variant``, ``chunk`` or ``length`` is out of its limits.
    """
    _check(drop_ratio, variant, chunk)
    if length < 0:
        raise UserError(f"length={length}: must not be negative")
    *shared, cut_id = key
    draws = keyed_uniforms(hash_id(str(cut_id)), "time-dropping", *shared)
    counts = count_pieces(np.array(length), drop_ratio, variant, chunk, least, *draws)
    size, pieces, dropped, tail, _, clamped = (values.item() for values in counts)
    keep = torch.ones(pieces, dtype=torch.bool)
    if dropped:
        # the counts have decided on the last piece; the others are equally long
        keep[-1] = not tail
        generator = keyed_generator("time-dropping", *key)
        keep[torch.randperm(pieces - 1, generator=generator)[: dropped - tail]] = False
        if size > 1:
            begin = int(torch.randint(length, (), generator=generator))
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
        drop_ratio: as in `plan_drop`.
        key: the key without the cut id, such as ``(seed, cycle)``.
        cut_hash: (N,) uint64, the `hash_id` of each cut id.
        variant: as in `plan_drop`.
        chunk: as in `plan_drop`.
        least: (N,) frames that must stay, or one number for all.

    Raises:
        UserError: as in `plan_drop`.
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
    """Count the pieces that are dropped, from two uniform draws in [0, 1) for each sequence.

    Args:
        lengths: (N,) frames of the sequences.
        drop_ratio: as in `plan_drop`.
        variant: as in `plan_drop`.
        chunk: as in `plan_drop`.
        least: (N,) frames that must stay, or one number for all.
        coin: (N,) draws that decide whether the number of dropped pieces is rounded up.
        position: (N,) draws that decide whether the last piece, which may be shorter, is dropped.
            The probability is that of a draw without replacement.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    size = (
        np.minimum(chunk, np.maximum(lengths, 1)) if variant == "chunk" else np.ones_like(lengths)
    )
    pieces = -(-lengths // size)
    asked = drop_ratio * pieces
    dropped = asked.astype(np.int64)
    dropped = dropped + (coin < asked - dropped)
    maximum = np.maximum(lengths - np.maximum(least, 1), 0) // size
    clamped = dropped > maximum
    dropped = np.minimum(dropped, maximum)
    tail = position * pieces < dropped
    left = lengths - dropped * size + tail * (pieces * size - lengths)
    return Counts(size, pieces, dropped, tail, left, clamped)


def _check(drop_ratio: float, variant: str, chunk: int) -> None:
    """Check the arguments that do not depend on the sequence.

    Raises:
        UserError: an argument is out of its limits.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"variant={variant}: choose one of {', '.join(VARIANTS)}{nearest(variant, VARIANTS)}"
        )
    if not 0 <= drop_ratio < 1:
        raise UserError(f"drop_ratio={drop_ratio}: must be at least 0 and below 1")
    if chunk < 1:
        raise UserError(f"chunk={chunk}: must be at least 1 frame")
