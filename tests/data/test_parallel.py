"""Parts shared among processes: in order, stopped early, and a dead worker is explained."""

import subprocess
import sys

import pytest

from asrprune.data.parallel import progress_bar, run_parts


def double(part, advance):
    advance(1)
    return 2 * part


@pytest.mark.parametrize("count", [0, 1, 5])
def test_one_process_yields_parts_in_order_one_at_a_time(count):
    taken = []

    def parts():
        for part in range(count):
            taken.append(part)
            yield part

    with progress_bar(count, "doubling") as bar:
        for part, result in run_parts(double, parts(), 1, bar):
            assert result == 2 * part
            assert taken[-1] == part
        assert bar.n == count
    assert taken == list(range(count))


IN_PROCESSES = """
import itertools, os, sys
from asrprune.data.parallel import progress_bar, run_parts
def work(part, advance):
    if part == "die":
        os._exit(3)
    while part == "endless":
        advance(0)
    advance(1)
    return 2 * part
if __name__ == "__main__":
    with progress_bar(4, "test") as bar:
        results = run_parts(work, itertools.chain(range(4), ["endless"]), 2, bar)
        assert list(itertools.islice(results, 4)) == [(n, 2 * n) for n in range(4)], "order"
        assert bar.n == 4, "bar"
        results.close()  # stops the endless part
        list(run_parts(work, ["die", "die"], 2, bar))
"""


def test_processes_keep_the_order_stop_when_told_and_are_missed_when_dead(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_PROCESSES)
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert "UserError: one of the 2 worker processes died" in ended.stderr, ended.stderr
