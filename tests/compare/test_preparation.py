"""The command lines that committed comparisons prepare their data with do make it."""

import subprocess
from pathlib import Path

import pytest

from asrprune.compare.kinds import load_study
from asrprune.compare.options import command_words

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("egs/*/*/conf/compare*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=[str(path.relative_to(ROOT)) for path in STUDIES])
def test_what_is_prepared_is_what_is_trained_on(path):
    options = load_study(path).options
    [line] = options.prepare
    done = subprocess.run(
        [*command_words(line), "--dry-run", "true"],
        cwd=path.parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    made = {words[place + 1] for place, word in enumerate(words) if word == "--out-dir"}
    assert made >= {options.manifest_dir, options.lang_dir}
    assert "asrprune train" not in done.stdout
