"""Tasks shared among processes, none of which outlives its parent by more than a task."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from tqdm import tqdm

from asrprune.errors import UserError

# does some tasks; calls its second argument with the progress made, after each
Work = Callable[[Sequence[Any], Callable[[int], None]], None]


def in_parallel(
    work: Work, tasks: Sequence[Any], jobs: int, total: int, unit: str, description: str
) -> None:
    """Run ``work`` on a share of the tasks in each of ``jobs`` processes, with a progress bar.

    The processes are spawned, not forked: this one may have threads. When this one is killed they
    stop at their next report; when one of them fails, all end.

    :param work: importable by name, as are its bound arguments.
    :param total: the sum of all the progress that will be reported, in ``unit``.
    :raises UserError: what ``work`` raised, or a process died.
    """
    if not tasks:
        return
    context = multiprocessing.get_context("spawn")
    reports: list[Connection] = []
    processes = []
    try:
        for job in range(min(jobs, len(tasks))):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(work, tasks[job::jobs], send), daemon=True)
            process.start()
            send.close()  # the child's copy is then the last: its end reads as end of file
            reports.append(receive)
            processes.append(process)
        with tqdm(total=total, unit=unit, desc=description) as bar:
            while reports:
                for report in wait(reports):
                    if not _take(report, bar):
                        reports.remove(report)
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise UserError(
                "a process died (its error is above; without one it was killed, perhaps for "
                "memory); the same command goes on from here"
            )
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _take(report: Connection, bar: tqdm) -> bool:
    """One message of a process; False at its end."""
    try:
        message = report.recv()
    except EOFError:
        return False
    if isinstance(message, UserError):
        raise message
    bar.update(message)
    return True


def _run(work: Work, tasks: Sequence[Any], send: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this
    with suppress(BrokenPipeError):  # the parent was killed
        try:
            work(tasks, send.send)
        except UserError as error:
            send.send(error)
