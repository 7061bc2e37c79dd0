"""Load batches in worker processes, which start safely and leave signals to the trainer."""

import os
import signal
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import forkserver, get_context, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader, Dataset

from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_generator
from asrprune.data.parallel import leave_with_parent

_GRACE = 30  # seconds that a worker continues after a SIGTERM
# signals that a terminal, torchrun or a batch system sends to the whole process group
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def load_batches(
    dataset: Dataset, sampler: Iterable, num_workers: int, key: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """Yield ``dataset[index]`` for each index of a sampler, in order, made by worker processes.

    Workers start with the first item, and end with the iterator.

    Args:
        dataset: A map-style dataset, which is pickled for the workers.
        sampler: The indices.
        num_workers: Number of worker processes; 0 loads inside this process.
        key: Key of the loader's own random generator.
        pin_memory: Copy tensors into pinned memory, as in torch's ``DataLoader``.

    Raises:
        UserError: The dataset raised this error for an item. The iterator raises it at that item.
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        # a generator of its own: otherwise iter(DataLoader) draws from the global generator
        generator=keyed_generator("loader", key),
        worker_init_fn=partial(_leave_signals_to_the_trainer, _GRACE),
        multiprocessing_context=_server(type(dataset).__module__) if num_workers else None,
        pin_memory=pin_memory,
    )
    for item in loader:
        if isinstance(item, UserError):
            raise item
        yield item


def _server(module: str) -> BaseContext:
    """Return the context of a server process that has imported ``module`` and forks the workers.

    The server is started once. A process with threads is not safe to fork. Threads of gloo that end
    a collective enter Python, to free the tensors of the collective. If such a thread holds the
    lock of the list of thread states during a fork, the child waits for this lock for ever (CPython
    before 3.12).
    """
    forkserver.set_forkserver_preload(["__main__", module])
    # The signals must not end the server, nor workers that are just starting, so they are blocked
    # here. The server ends with its parent. Starting the server also starts the resource tracker,
    # which unblocks the signals; so the tracker is started first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return get_context("forkserver")


class _ErrorsAsItems(Dataset):
    """Dataset that returns a UserError as an item. A worker would wrap a raised error."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _leave_signals_to_the_trainer(grace: int, _: int) -> None:
    # The trainer finishes its step with these workers, and then ends them. A worker that is left
    # behind ends itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(grace))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # the server has blocked the signals
    # Torch's workers check only whether their parent runs. The parent is the server, which runs as
    # long as its workers do. So the workers must watch the trainer themselves.
    leave_with_parent()
