"""Hash the ids of cuts, recognise copies of an utterance by their ids, and find ids again."""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from asrprune.base.errors import UserError

# Suffixes that lhotse appends to the id of a copy. Factors of speed, tempo and volume perturbation
# have a point or an exponent. Without one, ``_sp1`` may name a speaker: such a cut is not a copy.
# Repetition appends a number.
_COPY = re.compile(r"(_(sp|tp|vp)\d+(\.\d+(e-?\d+)?|e-?\d+)|_(repeat|dup)\d+)+$")
# Suffixes of a repeated cut. The sampler appends ``_pass1`` to a cut that comes again within an
# epoch. After this suffix lhotse appends ``_dup0`` on a rank that would get no cut.
_AGAIN = [re.compile(r"(_dup\d+)+$"), re.compile(r"_pass\d+(_dup\d+)*$")]


def utterance_id(cut_id: str) -> str:
    """Return the id of the utterance that a cut is a copy of: ``a`` for ``a_sp0.9_repeat1``."""
    return _COPY.sub("", cut_id) or cut_id


def hash_id(name: str) -> int:
    """Return the 64-bit hash of an id. It is the same on every machine."""
    return hash_pair(name)[0]


def hash_pair(name: str) -> tuple[int, int]:
    """Return two 64-bit hashes of an id. Two ids collide if only their first hashes are equal."""
    digest = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def check_distinct(keys: np.ndarray) -> None:
    """Check that no two cuts have the same id.

    Args:
        keys: (N, 2) hashes of the cuts' ids, from `hash_pair`.

    Raises:
        UserError: two cuts have the same id.
    """
    order = np.argsort(keys[:, 0], kind="stable")
    again = np.flatnonzero(np.diff(keys[order, 0].view(np.int64)) == 0)
    if len(again):
        first, second = sorted(order[again[0] : again[0] + 2].tolist())
        raise UserError(
            f"cuts {first + 1} and {second + 1} of the training manifest have the same id. Give "
            "each cut an id of its own."
        )


def number_ids(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct keys in order of first appearance.

    Args:
        keys: (N, 2) hashes of ids, from `hash_pair`.

    Returns:
        The first hashes (U,) of the distinct keys, and the number (N,) of each key.

    Raises:
        UserError: two ids have the same first hash.
    """
    hashes, first, inverse = np.unique(keys[:, 0], return_index=True, return_inverse=True)
    if (keys[first, 1][inverse] != keys[:, 1]).any():
        cut = int(np.flatnonzero(keys[first, 1][inverse] != keys[:, 1])[0])
        raise UserError(
            f"the id of cut {cut + 1} of the training manifest has the hash of another id. "
            "Rename this cut."
        )
    order = np.argsort(first)
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    return hashes[order], number[inverse]


def copied_once(name: str) -> str:
    """Return the id of a cut's utterance, without suffixes of repeated cuts and of copies."""
    return utterance_id(_AGAIN[1].sub("", name))


# How an id may be read: as it is, without lhotse's suffix, or without the sampler's suffix.
READINGS = (str, partial(_AGAIN[0].sub, ""), partial(_AGAIN[1].sub, ""))


def find_ids(
    ids: Sequence[str],
    hashes: np.ndarray,
    order: np.ndarray,
    readings: Sequence[Callable[[str], str]],
) -> np.ndarray:
    """Return the line (n,) int64 of each id by its first known reading, and -1 if none is known.

    Args:
        ids: n ids.
        hashes: (N,) uint64, the hash of each line's id.
        order: (N,) the lines in order of their hashes.
        readings: how an id may be read, such as `READINGS`, the first one first.
    """
    lines = np.full(len(ids), -1, dtype=np.int64)
    left = np.arange(len(ids))
    for reading in readings:
        wanted = np.array([hash_id(reading(ids[at])) for at in left.tolist()], dtype=np.uint64)
        position = np.searchsorted(hashes, wanted, sorter=order)
        found = order[np.minimum(position, len(order) - 1)]
        there = hashes[found] == wanted
        lines[left[there]] = found[there]
        left = left[~there]
        if not len(left):
            break
    return lines


def all_found(ids: Sequence[str], lines: np.ndarray) -> np.ndarray:
    """Return the lines after a check that every id was found.

    Raises:
        UserError: an id has no line.
    """
    if (missing := np.flatnonzero(lines < 0)).size:
        raise UserError(
            f"cut {ids[missing[0]]!r} is not in the training manifest that this index was made of. "
            "Use cuts of that manifest, or make the index again."
        )
    return lines
