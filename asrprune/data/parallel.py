"""Run a function over fixed parts of a corpus in several processes, with one progress bar.

The parts, not the number of processes, decide what is computed together, so results never depend on
``jobs``. Processes are spawned, never forked: torch may hold threads and locks.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from asrprune.base.errors import UserError

Part = TypeVar("Part")
Result = TypeVar("Result")
Work = Callable[[Part, Callable[[int], None]], Result]


class Stopped(Exception):
    """The parent process asked its workers to leave off."""


def run_parts(
    work: Work, parts: Iterable[Part], jobs: int, bar: tqdm
) -> Iterator[tuple[Part, Result]]:
    """Yield ``(part, work(part, advance))`` in the order of ``parts``.

    Args:
        work: a picklable function; it calls ``advance(n)`` after every n items, which moves the bar
            and lets the worker stop early when the run is interrupted. It runs on one torch thread.
        parts: any iterable; at most two parts a process are taken ahead.
        jobs: processes; 1 works inside this one.

    Raises:
        UserError: a worker process died.
    """
    if jobs <= 1:
        for part in parts:
            with one_torch_thread():
                result = work(part, bar.update)
            yield part, result
        return
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(done, stop))
    pending: deque[tuple[Part, Future]] = deque()
    parts = iter(parts)
    try:
        while True:
            while len(pending) < 2 * jobs and (part := next(parts, _END)) is not _END:
                pending.append((part, pool.submit(_call, work, part)))
            if not pending:
                return
            part, future = pending.popleft()
            while not future.done():
                wait([future], timeout=0.3)
                bar.update(done.value - bar.n)
            bar.update(done.value - bar.n)
            yield part, future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"one of the {jobs} worker processes died, which most often means that memory ran out; "
            "run the same command with fewer --jobs (what is finished is kept)"
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(wait=True, cancel_futures=True)


def progress_bar(total: int | None, what: str, unit: str = "cut") -> tqdm:
    """A progress bar on stderr, which writes seldom when nobody looks at a terminal."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, desc=what, unit=f" {unit}", mininterval=interval)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute on one thread: sums then have one order, whatever machine or number of processes.

    Work that has not imported torch computes nothing with it, and need not wait for its import.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_END: Any = object()
_done: Any = None  # items done, shared by all workers of a pool
_stop: Any = None  # set by the parent when the run ends early


def _start(done: Any, stop: Any) -> None:
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and sets the stop flag
    leave_with_parent()


def leave_with_parent() -> None:
    """End this process when the one that asked for it has ended, even if that was killed.

    One that waits for work would otherwise do so for ever.
    """
    parent = multiprocessing.parent_process()

    def leave() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=leave, daemon=True).start()


def _call(work: Work, part: Part) -> Result:
    with one_torch_thread():
        return work(part, _advance)


def _advance(count: int) -> None:
    if _stop.value:
        raise Stopped
    with _done.get_lock():
        _done.value += count
