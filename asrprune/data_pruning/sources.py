"""Read a lazy CutSet in an order that is a pure function of (seed, epoch).

Lhotse's lazy sets may come in another order at each iteration. `CutSet.from_files` and lazy
`.shuffle()` draw from Python's global generator. Shuffled Shar counts its iterations. If ranks draw
different orders, some cuts are lost and others repeated, and a restart cannot find its position.
Here each iteration reads a fresh copy of the set, with random generators of its own.
"""

import copy
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.lazy import (
    LazyInfiniteApproximateMultiplexer,
    LazyIteratorChain,
    LazyManifestIterator,
    LazyRepeater,
)

from asrprune.base.errors import UserError
from asrprune.base.randomness import OwnGenerators, key_to_seed

_PIECE = 64  # cuts that are read at a time; few, because a cut of Shar holds its audio
# Attributes of lhotse's lazy iterators: what they read, what they mix in, how often they were read.
_INNER = ("iterator", "iterators", "data", "source")
_MIXED_IN = "mix_in_cuts"
_COUNTS = ("num_iters", "num_times_iterated", "epoch")


def check_source(cuts: CutSet, world_size: int = 1) -> None:
    """Refuse a CutSet whose cuts or order cannot be repeated.

    Args:
        cuts: the set.
        world_size: number of ranks that read the set.

    Raises:
        UserError: the set has no end; its order is drawn without a fixed seed (``trng``); or each
            rank would read another part of the set.
    """
    for node in _nodes(cuts):
        endless = isinstance(node, LazyRepeater) and node.times is None
        if endless or isinstance(node, LazyInfiniteApproximateMultiplexer):
            raise UserError(
                "The training cuts have no end (repeat() or infinite_mux()), so no keep-set can "
                "be planned. Give each cut once, for example with CutSet.mux(...). An epoch ends "
                "with the last cut."
            )
        if getattr(node, "seed", None) == "trng":
            raise UserError(
                'The order of the training cuts is drawn by the machine (seed="trng"), so it would '
                "differ between ranks, and after a restart. Give a number as the seed."
            )
        if getattr(node, "split_for_dataloading", False) and world_size > 1:
            raise UserError(
                "The training cuts are split over ranks when they are read "
                "(split_for_dataloading=True). The sampler would split them again, and lose most "
                "of them. Set split_for_dataloading=False."
            )


def read_in_order(cuts: CutSet, seed: int, epoch: int) -> Iterator[list[Cut]]:
    """Yield the cuts of a lazy set in lists; the order is the same for the same seed and epoch.

    The global random generators of Python, numpy and torch do not change.
    """
    generators = OwnGenerators("order of cuts", seed, epoch)
    with generators:
        source = iter(_fresh(cuts, seed, epoch))
    while True:
        with generators:
            piece = list(islice(source, _PIECE))
        if not piece:
            return
        yield piece


def _nodes(node: Any) -> Iterator[Any]:
    """Yield a lazy set, and all sets and iterators that it reads from."""
    yield node
    for name in _INNER:
        inner = getattr(node, name, None)
        if isinstance(inner, (list, tuple)) and not isinstance(node, CutSet):
            for each in inner:
                yield from _nodes(each)
        elif _is_lazy(inner):
            yield from _nodes(inner)


def _is_lazy(node: Any) -> bool:
    return isinstance(node, CutSet) or (
        type(node).__module__.startswith("lhotse.") and isinstance(node, Iterable)
    )


def _fresh(node: Any, seed: int, epoch: int) -> Any:
    """Return a copy of a lazy set as if it had never been read, for a given epoch."""
    if isinstance(node, CutSet):
        return CutSet(_fresh(node.data, seed, epoch)) if node.is_lazy else node
    if not _is_lazy(node) or isinstance(node, LazyManifestIterator):
        return node
    original, node = node, object.__new__(type(node))
    node.__dict__.update(vars(original))  # copy.copy would share the attributes of a Dillable
    for name in (*_INNER, _MIXED_IN):
        inner = getattr(node, name, None)
        if isinstance(inner, (list, tuple)):
            setattr(node, name, [_fresh(each, seed, epoch) for each in inner])
        elif _is_lazy(inner):
            setattr(node, name, _fresh(inner, seed, epoch))
    if isinstance(node, LazyIteratorChain) and node.shuffle_iters:
        node.iterators.sort(key=_paths)  # lhotse shuffles this list in place at each iteration
    for name in _COUNTS:  # lhotse counts iterations; here the epoch takes their place
        if isinstance(getattr(node, name, None), int):
            setattr(node, name, epoch)
    for name in ("rng", "seed"):
        if isinstance(own := getattr(node, name, None), random.Random):
            state = copy.copy(own).getrandbits(62)
            setattr(node, name, random.Random(key_to_seed("rng", state, seed, epoch)))
    return node


def _paths(node: Any) -> list[str]:
    """Return the files that a lazy set reads, as a key to sort sets by."""
    found = []
    for inner in _nodes(node):
        path = getattr(inner, "path", None) or getattr(inner, "streams", None)
        found.append(str(path) if path else "")
    return found
