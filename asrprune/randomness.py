"""Random draws as pure functions of a key, so that workers, ranks and restarts change nothing.

Every draw of data preparation, augmentation and training is keyed by what it belongs to, such as
``(seed, epoch, cut id)`` or ``(seed, step, rank)``. There is then no generator state to save.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
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


def seed_global_generators(seed: int) -> None:
    """Seed all global generators: of ``random``, of numpy and of torch, accelerators included.

    Torch's draws are those after ``torch.manual_seed(seed)``. Code that is called next may draw
    from any of the three: a dropout draws from torch's, and Zipformer from Python's too.
    """
    import torch

    seed_cpu_generators(seed)
    torch.manual_seed(seed)


def seed_cpu_generators(seed: int) -> None:
    """Seed the global generators of ``random``, of numpy and of torch on the CPU; it is fast."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.random.default_generator.manual_seed(seed)


@contextmanager
def kept_global_generators() -> Iterator[None]:
    """Put the global generators of ``random``, numpy and torch back to where they were before.

    Torch's are those of the CPU and of the present CUDA device, if CUDA is in use.
    """
    import numpy as np
    import torch

    cuda = torch.cuda.is_initialized()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    cuda_state = torch.cuda.get_rng_state() if cuda else None
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda:
            torch.cuda.set_rng_state(cuda_state)


@contextmanager
def keyed_global_generators(*key: int | str) -> Iterator[None]:
    """Seed the global generators of ``random``, numpy and torch, and put them back afterwards.

    For code that draws from global generators, such as lhotse's SpecAugment.
    """
    import torch

    seed = key_to_seed(*key)
    with kept_global_generators():
        seed_cpu_generators(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed(seed)
        yield
