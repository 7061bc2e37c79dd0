"""Cuts that a file names are left out of training sets, with their copies and a reason."""

from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.data.leave_out import LeaveOut
from tests.data.test_validate import change, corpus, ids, rejected, run, set_text  # noqa: F401


def written(*lines: str, end: str = "\n") -> str:
    Path("errors.txt").write_bytes(end.join((*lines, "")).encode())
    return "errors.txt"


def test_named_cuts_and_their_copies_are_left_out(corpus):  # noqa: F811
    everything = run("--eval", "test")
    before = ids("train")
    found = run("--eval", "test", "--leave-out", written("train-03", "", " train-05_sp0.9"))
    left_out = {name for name in before if name.startswith(("train-03", "train-05"))}
    assert len(left_out) == 6  # both utterances, each with its copies at two other speeds
    assert set(before) - set(ids("train")) == left_out and ids("test") == [
        "test-00",
        "test-01",
        "test-02",
    ]
    assert {row[1] for row in rejected()} == left_out
    assert {tuple(row[2:]) for row in rejected()} == {
        ("left-out", "errors.txt, line 1"),
        ("left-out", "errors.txt, line 3"),
    }
    assert found["rejected"] == 6 and everything["rejected"] == 0


def test_a_defective_cut_may_be_left_out_by_its_name(corpus):  # noqa: F811
    name = change(4, set_text(" "))
    with pytest.raises(UserError, match="empty-text"):
        run()
    run("--leave-out", written(name, end="\r\n"))
    assert name in {row[1] for row in rejected()} and name not in ids("train")


def test_a_cut_of_an_evaluation_set_stays_there(corpus):  # noqa: F811
    run("--eval", "test", "--leave-out", written("test-01"))
    assert "test-01" in ids("test") and rejected() == []


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["train-01", "train-91"], "errors.txt, line 2: no set has a cut 'train-91'. Delete"),
        (["x", "", "y", "train-01"], "line 1: no set has a cut 'x', nor 1 other cuts of the file."),
        (["", " "], "the file names no cut"),
    ],
)
def test_a_cut_that_no_set_has_is_named(corpus, lines, message):  # noqa: F811
    with pytest.raises(UserError) as caught:
        run("--eval", "test", "--leave-out", written(*lines))
    assert message in str(caught.value)
    assert not list(Path().glob("valid/*"))


def test_a_file_that_does_not_exist_is_named():
    with pytest.raises(UserError, match="--leave-out nothing.txt: this file does not exist"):
        LeaveOut(Path("nothing.txt"))
