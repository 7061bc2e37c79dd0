"""What is committed is whole: no marks of an unfinished merge, no names of tests that are gone."""

import subprocess
from pathlib import Path

import pytest

from tests.exhaustive import EXHAUSTIVE

ROOT = Path(__file__).parents[1]


def test_no_marks_of_a_merge():
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    marks = r"^(<{7}|={7}|>{7}|\|{7})( |$)"
    command = ["git", "-C", str(ROOT), "grep", "-InE", marks]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.parametrize("name", sorted(EXHAUSTIVE))
def test_what_runs_only_when_asked_for_exists(name):
    path, _, test = name.partition("::")
    assert f"def {test.partition('[')[0]}(" in (ROOT / path).read_text()
