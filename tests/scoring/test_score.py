"""The verb ``asrprune score``: from recogs files to error rates, tables and differences."""

import json
import os

import pytest

from asrprune.cli import main
from asrprune.scoring.files import write_recogs
from asrprune.scoring.wer import Utterance

REFS = {"a": "ONE TWO THREE", "b": "FOUR FIVE", "c": "", "d": "SIX SEVEN EIGHT NINE"}
GOOD = {"a": "ONE TWO THREE", "b": "FOUR FIVE", "c": "", "d": "SIX SEVEN EIGHT"}
BAD = {"a": "ONE TO THREE", "b": "FOUR", "c": "UH", "d": "SIX SEVEN EIGHT"}


def write(folder, hyps, test_set="test", suffix="epoch-3-avg-2", method="greedy_search"):
    utterances = [Utterance(k, REFS[k].split(), hyp.split()) for k, hyp in hyps.items()]
    path = folder / method / f"recogs-{test_set}-{suffix}.txt"
    write_recogs(path, utterances)
    return path


def score(folder, *sets, **options):
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    return main(
        ["score", "--exp-dir", str(folder), "--decoding-method", "greedy_search",
         "--test-sets", *(sets or ("test",)), *words]
    )  # fmt: skip


def test_the_last_lines_are_the_rates(tmp_path, capsys):
    write(tmp_path, BAD)
    write(tmp_path, GOOD, "test-other")
    assert score(tmp_path, "test", "test-other") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "%WER 44.44 [ 4 / 9, 1 ins, 2 del, 1 sub ] test greedy_search",
        "%WER 11.11 [ 1 / 9, 0 ins, 1 del, 0 sub ] test-other greedy_search",
    ]


def test_tables(tmp_path):
    exp = tmp_path / "conformer-s"
    write(exp, BAD)
    assert score(exp) == 0
    before = (exp / "results-greedy_search.json").read_bytes()
    row = json.loads(before)["test epoch-3-avg-2"]
    assert (row["method"], row["model"]) == ("greedy_search", "conformer-s epoch-3-avg-2")
    assert row["file"] == "greedy_search/recogs-test-epoch-3-avg-2.txt"
    assert row["WER"]["counts"] == {
        "insertions": 1, "deletions": 2, "substitutions": 1, "words": 9,
    }  # fmt: skip
    assert row["WER"]["rate"] == pytest.approx(4 / 9)
    assert row["WER"]["low"] < row["WER"]["rate"] < row["WER"]["high"]
    assert row["CER"]["counts"]["words"] == len("ONETWOTHREEFOURFIVESIXSEVENEIGHTNINE")
    head, rule, line = (exp / "results-greedy_search.md").read_text().splitlines()
    assert head.count("|") == rule.count("|") == line.count("|")
    assert line.startswith("| test | greedy_search | 44.44 | ")
    assert line.endswith(" | 1 | 2 | 1 | 9 | 30.56 | conformer-s epoch-3-avg-2 |")
    assert score(exp) == 0
    assert (exp / "results-greedy_search.json").read_bytes() == before


def test_another_set_adds_a_row(tmp_path):
    write(tmp_path, BAD)
    write(tmp_path, GOOD, "test-other")
    assert score(tmp_path, "test") == score(tmp_path, "test-other") == 0
    lines = (tmp_path / "results-greedy_search.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| test", "| test-other"]


def test_settings_and_models_stand_side_by_side(tmp_path, capsys):
    suffixes = ["epoch-3-avg-2", "epoch-3-avg-2-streaming", "epoch-9-avg-2", "model_x"]
    for number, suffix in enumerate(suffixes):
        path = write(tmp_path, BAD, suffix=suffix)
        os.utime(path, ns=(number, number))
        assert score(tmp_path) == 0
    table = tmp_path / "results-greedy_search.json"
    assert list(json.loads(table.read_text())) == [f"test {suffix}" for suffix in suffixes]
    lines = (tmp_path / "results-greedy_search.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| test"] * 4
    assert [line.split()[-2] for line in lines] == suffixes

    write(tmp_path, GOOD, suffix=suffixes[1])  # the same again, now the newest
    assert score(tmp_path) == 0
    rows = json.loads(table.read_text())
    assert list(rows) == [f"test {suffix}" for suffix in suffixes]
    errors = [sum(list(row["WER"]["counts"].values())[:3]) for row in rows.values()]
    assert errors == [4, 1, 4, 4]
    assert capsys.readouterr().out.splitlines()[-1] == (
        "%WER 11.11 [ 1 / 9, 0 ins, 1 del, 0 sub ] test greedy_search"
    )


def test_the_newest_result_counts(tmp_path, capsys):
    old = write(tmp_path, BAD, suffix="epoch-9-avg-1")
    os.utime(old, ns=(0, 0))
    write(tmp_path, GOOD)
    assert score(tmp_path) == 0
    assert "%WER 11.11 " in capsys.readouterr().out


def test_against_another_experiment(tmp_path, capsys):
    ours, theirs = tmp_path / "a", tmp_path / "b"
    write(ours, {key: GOOD[key] for key in "abd"})
    write(theirs, BAD)
    assert score(ours, against=theirs) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("test: WER -22.22 [")  # 1 error less 3, over 9 words
    assert "3 common utterances, 1 in one only" in lines[0]
    assert lines[-1].startswith("%WER 11.11 ")
    row = json.loads((ours / "results-greedy_search.json").read_text())["test epoch-3-avg-2"]
    assert row["against"]["rate"] == pytest.approx(-2 / 9)
    assert (row["against"]["utterances"], row["against"]["left_out"]) == (3, 1)
    assert score(ours, against=ours) == 0
    assert "test: WER +0.00 [+0.00, +0.00]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ([Utterance("a", ["OTHER"], [])], "references of a differ"),
        ([Utterance("z", [], [])], "no utterance in common"),
    ],
)
def test_what_cannot_be_compared(tmp_path, capsys, theirs, message):
    write(tmp_path / "a", GOOD)
    write_recogs(tmp_path / "b" / "greedy_search" / "recogs-test-epoch-1-avg-1.txt", theirs)
    assert score(tmp_path / "a", against=tmp_path / "b") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a" / "results-greedy_search.md").exists()


def test_missing_or_empty_results_are_named(tmp_path, capsys):
    assert score(tmp_path) == 1
    error = capsys.readouterr().err
    assert "no recogs-test-*.txt" in error and "stage (8)" in error
    write(tmp_path, {})
    assert score(tmp_path) == 1
    assert "holds no utterances" in capsys.readouterr().err


def test_words_recognised_where_none_were_said(tmp_path, capsys):
    write(tmp_path, {"c": "UH"})
    assert score(tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("%WER inf [ 1 / 0, 1 ins")
    (row,) = json.loads((tmp_path / "results-greedy_search.json").read_text()).values()
    assert row["WER"]["rate"] is None
