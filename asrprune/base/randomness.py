"""Draw random numbers as pure functions of a key.

Workers, ranks and restarts do not change such draws. Every draw of data preparation, augmentation
and training has a key. A key names the object of the draw, such as ``(seed, epoch, cut id)`` or
``(seed, step, rank)``. So there is no generator state to save.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # imported late: a process that only needs keys starts fast
    import numpy as np
    import torch

Hashes = TypeVar("Hashes", int, "np.ndarray")

_64_BITS = 2**64 - 1


def key_to_seed(*key: int | str) -> int:
    """Return a 63-bit seed for a key. It is equal on every machine and in every process."""
    return int.from_bytes(_digest(key, 8), "little") >> 1


def _digest(key: Iterable[int | str], size: int) -> bytes:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def keyed_uniforms(hashes: Hashes, *key: int | str, count: int = 2) -> list:
    """Draw ``count`` independent uniform numbers in [0, 1) for each item, from its hash and a key.

    The numbers of an item depend on its hash and the key alone. So many items can be drawn at once,
    in any order and in parts. Each number has 53 bits.

    Args:
        hashes: well-spread 64-bit hashes of the items: a numpy array (N,) uint64, or the hash of
            one item as an int.
        *key: the key that all items share, such as ``(seed, epoch)``.
        count: numbers of an item, 1 to 8.

    Returns:
        ``count`` float64 arrays (N,), or ``count`` floats with the same bits.
    """
    digest = _digest(key, 8 * count)
    words = [int.from_bytes(digest[at : at + 8], "little") for at in range(0, len(digest), 8)]
    mixed = _mix(hashes)  # each hash is mixed twice, because hashes may differ in few bits
    return [(_mix((mixed + word) & _64_BITS) >> 11) * 2.0**-53 for word in words]


def _mix(x: Hashes) -> Hashes:
    """Mix 64 bits so that each output bit depends on all input bits.

    The function is a bijection, the finaliser of SplitMix64. Source: Steele, Lea and Flood 2014,
    "Fast Splittable Pseudorandom Number Generators", with the constants that
    `java.util.SplittableRandom` took from D. Stafford ("variant 13").
    """
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return x ^ (x >> 31)


def keyed_random(*key: int | str) -> random.Random:
    """Return a Python generator for a key."""
    return random.Random(key_to_seed(*key))


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a torch CPU generator for a key."""
    import torch

    return torch.Generator().manual_seed(key_to_seed(*key))


def seed_global_generators(seed: int) -> None:
    """Seed all global generators: of ``random``, numpy and torch, including accelerators.

    Torch then draws as after ``torch.manual_seed(seed)``. Later code may draw from any of the three
    generators: dropout draws from torch's, and Zipformer also from Python's.
    """
    import torch

    seed_cpu_generators(seed)
    torch.manual_seed(seed)


def seed_cpu_generators(seed: int) -> None:
    """Seed the global generators of ``random``, numpy and torch on the CPU. This is fast."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)


@contextmanager
def kept_global_generators() -> Iterator[None]:
    """Restore the global generators of ``random``, numpy and torch when the context ends.

    Torch's generators are those of the CPU and, if CUDA is in use, of the present CUDA device.
    """
    import torch

    states = _cpu_states()
    cuda_state = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        _set_cpu_states(states)
        if cuda_state is not None:
            torch.cuda.set_rng_state(cuda_state)


@contextmanager
def keyed_global_generators(*key: int | str) -> Iterator[None]:
    """Seed the global generators of ``random``, numpy and torch, and restore them afterwards.

    Use it for code that draws from global generators, such as lhotse's SpecAugment.
    """
    import torch

    seed = key_to_seed(*key)
    with kept_global_generators():
        seed_cpu_generators(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)
        yield


class OwnGenerators:
    """Keep a separate stream of the global generators of ``random``, numpy and torch (CPU).

    The key seeds the stream. Inside ``with``, the global generators continue where the stream
    stopped last. Outside, they have their previous states. Use it for library code that draws from
    global generators and is called repeatedly, such as lhotse's lazy shuffling.
    """

    def __init__(self, *key: int | str) -> None:
        self._seed = key_to_seed(*key)
        self._own: tuple | None = None  # states of the stream; None before its first use
        self._others: tuple = ()

    def __enter__(self) -> OwnGenerators:
        self._others = _cpu_states()
        if self._own is None:
            seed_cpu_generators(self._seed)
        else:
            _set_cpu_states(self._own)
        return self

    def __exit__(self, *_: object) -> None:
        self._own = _cpu_states()
        _set_cpu_states(self._others)


def _cpu_states() -> tuple:
    import numpy as np
    import torch

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_cpu_states(states: tuple) -> None:
    import numpy as np
    import torch

    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
