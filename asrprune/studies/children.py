"""Verbs as child processes: a few at a time, all of them stopped together."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.errors import UserError
from asrprune.files import read_json

# a verb in a process of its own; what follows is the file for what it used, the verb, its words
CHILD = (sys.executable, "-m", "asrprune.studies.child")


class Stopped(Exception):
    """The comparison was told to stop."""


class Children:
    """The child processes that run at present. Its methods may be called from several threads."""

    def __init__(self, threads: int):
        """Set how many CPU threads each child process gets.

        Args:
            threads: CPU threads of each child process.
        """
        # idle threads that spin would disturb the neighbours; see asrprune.cli
        self._environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, words: Sequence[str], log: Path) -> dict[str, float]:
        """Run a verb to its end; returns its ``seconds`` and ``cpu_seconds``.

        What it writes is added to ``log``.

        Raises:
            UserError: it failed; with its last words.
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
                    start_new_session=True,  # a Ctrl-C is for the comparison, which passes it on
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
        """Ask all to end (trainings save first), and let none start."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()

    def kill(self) -> None:
        """End all at once."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def _last_line(log: Path, begin: int) -> str:
    with open(log, "rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].rpartition("\r")[2] if said else f"it said nothing; see {log}"
