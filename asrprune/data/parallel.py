"""Run a function over fixed parts of a corpus in several processes, with one progress bar.

The parts, not the number of processes, decide what is computed together. So results never depend on
``jobs``. Processes are spawned, never forked, because torch may have threads and hold locks.
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
    """Raised in a worker when the parent process asks its workers to stop."""


def run_parts(
    work: Work, parts: Iterable[Part], jobs: int, bar: tqdm
) -> Iterator[tuple[Part, Result]]:
    """Yield ``(part, work(part, advance))`` in the order of ``parts``.

    Args:
        work: A picklable function, which runs on one torch thread. It calls ``advance(n)`` after
            every n items. This call moves the bar, and stops the worker if the run is interrupted.
        parts: Any iterable. At most two parts per process are taken ahead.
        jobs: Number of processes; 1 works inside this process.
        bar: The progress bar.

    Raises:
        UserError: A worker process died.
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
    """Return a progress bar on stderr, which writes only every 30 s if stderr is no terminal."""
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(total=total, desc=what, unit=f" {unit}", mininterval=interval)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Compute on one torch thread. Sums then have the same order on every machine.

    If torch is not imported, the work does not use torch. Then nothing is done, to save the import.
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
_done: Any = None  # number of items done, shared by all workers of a pool
_stop: Any = None  # flag that the parent sets when the run ends


def _start(done: Any, stop: Any) -> None:
    global _done, _stop
    _done, _stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and sets the stop flag
    leave_with_parent()


def leave_with_parent() -> None:
    """End this process when the process that asked for it has ended, even if by a kill.

    Otherwise a process that waits for work would wait for ever.
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
