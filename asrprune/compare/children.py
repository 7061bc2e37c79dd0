"""Runs verbs of ``asrprune`` in child processes, and stops all of them together."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.files import read_json

# Runs a verb in a child process. Append the file for its CPU time, the verb and its arguments.
CHILD = (sys.executable, "-m", "asrprune.compare.child")


class Stopped(Exception):
    """The comparison was told to stop."""


class Children:
    """The child processes that are running. Several threads may call the methods."""

    def __init__(self, threads: int, jobs: int):
        """Set how many CPU threads each child process gets.

        Args:
            threads: CPU threads of each child process.
            jobs: the largest number of child processes at a time.
        """
        self.threads, self.jobs = threads, jobs
        # Idle threads that spin would slow down the other children; see asrprune.cli.
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, words: Sequence[str], log: Path) -> dict[str, float]:
        """Run a verb until it ends.

        Args:
            words: the verb and its arguments.
            log: the verb's output is appended to this file.

        Returns:
            The verb's ``seconds`` (wall-clock) and ``cpu_seconds``.

        Raises:
            UserError: the verb failed; the message ends with the last line of its output.
            Stopped: `stop` was called.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        usage = log.with_name(f".usage-{words[0]}.json")
        command = [*CHILD, str(usage), *words]
        started = time.monotonic()
        with open(log, "ab") as file:
            begin = file.tell()
            with self._lock:
                if self._stopped:
                    raise Stopped
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C reaches the comparison, which stops children
                )
                self._running.add(process)
            try:
                status = process.wait()
            finally:
                process.stdin.close()
                with self._lock:
                    self._running.discard(process)
        seconds = time.monotonic() - started
        if status:
            if self._stopped:
                raise Stopped
            raise UserError(f"{words[0]} ended with status {status}: {_last_line(log, begin)}")
        used: dict[str, Any] = read_json(usage)
        usage.unlink()
        return {"seconds": seconds, **used}

    def stop(self) -> None:
        """Ask all children to end, and start no more. Trainings save before they end."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def kill(self) -> None:
        """End all children at once."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def _last_line(log: Path, begin: int) -> str:
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].rpartition("\r")[2] if said else f"it printed nothing; see {log}"
