"""A verb in a process of its own, which ends when the process that started it ends.

``python -m asrprune.studies.child USAGE VERB ...``: its standard input is a pipe that nobody writes
to, and that closes with its parent. A training then saves where it is, as after a SIGTERM. At the
end USAGE holds the processor time that it took, its own children included.
"""

import os
import resource
import runpy
import signal
import sys
import threading

from asrprune.files import write_json


def main() -> None:
    """Run the verb; the exit status is its."""
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
