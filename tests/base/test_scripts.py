"""Laws of how verbs and scripts end: one message, one status, whatever the system says."""

import errno
import os
import re
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.base.scripts import run_script

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path
    for path in sorted((ROOT / "egs").glob("*/ASR/local/*.py"))
    if "__main__" in path.read_text("utf-8")
]
# it reads nothing but standard input; it tells its own errors of the network and of the disk
OTHERS = {"normalise.py", "download.py"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: "/".join(path.parts[-4:]))
def test_every_script_of_a_recipe_tells_errors_in_one_message(path):
    text = path.read_text("utf-8")
    shared = re.search(r"\brun_script\(|\n    run\(utterances\)", text)
    assert shared or path.name in OTHERS


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSPC,
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENOMEM,
        errno.EPIPE,
        errno.ESTALE,
        errno.ENOSYS,
        errno.ENOLCK,
        errno.EACCES,
    ],
)
@pytest.mark.parametrize("name", [None, "data/a.tsv"])
def test_an_error_of_the_system_is_one_line(number, name, capsys):
    def work():
        raise OSError(number, os.strerror(number), name)

    assert run_script("prepare", work) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and os.strerror(number) in told and "None" not in told
    assert told.startswith("prepare: error: ") and (name or "") in told


def test_other_ends(capsys):
    def fail():
        raise UserError("no such corpus")

    def stop():
        raise KeyboardInterrupt

    assert run_script("a", fail) == 1
    assert run_script("a", stop) == 130
    assert run_script("a", lambda: None) == 0 and run_script("a", lambda: 3) == 3
    assert capsys.readouterr().err.splitlines() == [
        "a: error: no such corpus",
        "a: interrupted; the same command goes on from here",
    ]
    with pytest.raises(ZeroDivisionError):  # a bug has its traceback
        run_script("a", lambda: 1 // 0)
