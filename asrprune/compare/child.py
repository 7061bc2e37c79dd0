"""Runs a verb in a process that ends when its parent process ends.

Usage: ``python -m asrprune.compare.child USAGE VERB ...``. Standard input is a pipe that nobody
writes to. The pipe closes when the parent ends. This process then sends itself SIGTERM, after which
a training saves and ends. At the end, the file USAGE holds the CPU time of this process and its
children.
"""

import os
import resource
import runpy
import signal
import sys
import threading

from asrprune.base.files import write_json


def main() -> None:
    """Run the verb, and end with the verb's exit status."""
    usage, *words = sys.argv[1:]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = ["asrprune", *words]
    try:
        runpy.run_module("asrprune.cli", run_name="__main__")
    finally:
        write_json(usage, {"cpu_seconds": round(_cpu_seconds(), 2)})


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _cpu_seconds() -> float:
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, who))


if __name__ == "__main__":
    main()
