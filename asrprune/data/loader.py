"""Loads batches in worker processes, which start safely and leave signals to the trainer."""

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

_GRACE = 30  # seconds that a worker goes on after a SIGTERM
# what reaches the whole process group, from a terminal, torchrun or a batch system
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def load_batches(
    dataset: Dataset, sampler: Iterable, num_workers: int, key: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """``dataset[index]`` for each index of a sampler, in order, made by worker processes.

    Workers start with the first item, and end with the iterator. ``dataset`` is pickled for them.

    Args:
        num_workers: 0 loads inside this process.
        key: of the loader's own generator.

    Raises:
        UserError: the dataset raised one; raised when it comes to that item.
    """
    loader = DataLoader(
        _ErrorsAsItems(dataset),
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        # its own generator: iter(DataLoader) would otherwise draw from the global one
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
    """A server process, started once, that has imported ``module`` and forks the workers.

    A process with threads is not safe to fork. Of gloo's, those that end a collective enter Python
    to free its tensors, and CPython before 3.12 leaves a child for ever waiting for the lock of the
    list of thread states if one of them held it at that moment.
    """
    forkserver.set_forkserver_preload(["__main__", module])
    # as workers, also those that are just starting, it must outlive them; it ends with its parent
    resource_tracker.ensure_running()  # the server would start it, which unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return get_context("forkserver")


class _ErrorsAsItems(Dataset):
    """A dataset whose errors for the user are items: a worker would wrap them in its traceback."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def _leave_signals_to_the_trainer(grace: int, _: int) -> None:
    # the trainer finishes its step with these workers and ends them; one left behind ends itself
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(grace))
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # the server blocks them
    # torch's workers look whether their parent is there, which is the server; and that is there as
    # long as they are
    leave_with_parent()
