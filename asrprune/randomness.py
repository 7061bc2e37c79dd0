"""Random draws as pure functions of a key, so that workers, ranks and restarts change nothing.

Every draw of data preparation, augmentation and training is keyed by what it belongs to, such as
``(seed, epoch, cut id)`` or ``(seed, step, rank)``. There is then no generator state to save.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported where used: a process that only needs keys starts fast, without torch
    import torch


def key_to_seed(*key: int | str) -> int:
    """A 63-bit seed from a key; equal on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_random(*key: int | str) -> random.Random:
    """A Python generator for this key."""
    return random.Random(key_to_seed(*key))


def keyed_generator(*key: int | str) -> torch.Generator:
    """A torch CPU generator for this key."""
    import torch

    return torch.Generator().manual_seed(key_to_seed(*key))


class OwnGenerators:
    """The global generators of ``random``, numpy and torch (CPU) as a stream of their own.

    Inside of ``with`` the global generators go on from where this stream stopped, seeded by its
    key; outside they are as they were. For library code that draws from global generators, such as
    lhotse's lazy shuffling, and that is called again and again.
    """

    def __init__(self, *key: int | str) -> None:
        self._seed = key_to_seed(*key)
        self._own: tuple | None = None  # the stream's states, once it has begun
        self._others: tuple = ()

    def __enter__(self) -> OwnGenerators:
        self._others = _global_states()
        if self._own is None:
            seed_global_generators(self._seed)
        else:
            _set_global_states(self._own)
        return self

    def __exit__(self, *_: object) -> None:
        self._own = _global_states()
        _set_global_states(self._others)


def seed_global_generators(seed: int) -> None:
    """Seed the global generators of ``random``, numpy and torch (CPU)."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)


def keyed_global_generators(*key: int | str) -> OwnGenerators:
    """Seed the global generators of ``random``, numpy and torch (CPU), and put them back after.

    For library code that draws from global generators, such as lhotse's SpecAugment.
    """
    return OwnGenerators(*key)


def _global_states() -> tuple:
    import numpy as np
    import torch

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _set_global_states(states: tuple) -> None:
    import numpy as np
    import torch

    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
