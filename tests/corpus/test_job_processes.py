"""Tasks shared among processes: all done once, and errors arrive."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from asrprune.corpus.job_processes import in_parallel
from asrprune.errors import UserError


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    """Spawned processes find this module by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[__name__.count(".")]))


def write(folder, tasks, progress):
    """Leave a file a task."""
    for task in tasks:
        (folder / task).write_text(str(os.getpid()))
        progress(1)


def refuse(tasks, progress):
    """Fail as a user's error does, after some progress."""
    progress(1)
    raise UserError(f"no room for {tasks[0]}")


def die(tasks, progress):
    """End as under the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def run(work, tasks, jobs=2):
    in_parallel(work, tasks, jobs, total=len(tasks), unit="task", description="test")


def test_every_task_is_done_once_by_several_processes(tmp_path):
    tasks = ["a", "b", "c", "d", "e"]
    run(partial(write, tmp_path), tasks)
    assert sorted(path.name for path in tmp_path.iterdir()) == tasks
    writers = {path.read_text() for path in tmp_path.iterdir()}
    assert len(writers) == 2 and str(os.getpid()) not in writers


def test_nothing_to_do():
    run(refuse, [])


def test_an_error_of_the_work_arrives():
    with pytest.raises(UserError, match="no room for a"):
        run(refuse, ["a"])


def test_a_killed_process_is_reported():
    with pytest.raises(UserError, match="a process died"):
        run(die, ["a"])
