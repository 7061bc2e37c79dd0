"""What is committed is whole: no marks of a merge that was not finished."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_no_marks_of_a_merge():
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    marks = r"^(<{7}|={7}|>{7}|\|{7})( |$)"
    command = ["git", "-C", str(ROOT), "grep", "-InE", marks]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (1, "")
