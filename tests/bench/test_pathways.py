"""``asrprune bench pathways``, on a model that takes little time."""

import re
from contextlib import contextmanager

import pytest

from asrprune import cli
from asrprune.decoding.pathways import Pathways

SMALL = ["bench", "pathways", "--layers", "1", "--dim", "32", "--ffn_dim", "64", "--threads", "1"]
SMALL += ["--rounds", "1", "--languages", "3", "--seconds", "0.5", "--utterances", "2"]


def test_every_cost_has_a_line_and_its_target(capsys):
    assert cli.main(SMALL) == 0
    lines = capsys.readouterr().out.splitlines()
    number = r"[\d.]+"
    took = (
        rf"{number} s by language; in turns the ratio is {number} \({number} to {number}\), of CPU "
        rf"time {number} \(wanted: at most 1.05 times(; MISSED)?\); a switch is {number}% of a "
        rf"batch's time; equal hypotheses, {number} symbols a second"
    )
    expected = [
        r"Emformer of 0.0 M parameters in a transducer of [\d.]+ M, 0.0 M of them in 8x1 blocks of "
        r"5 layers, masks of sparsity 0.7; torch \S+, 1 threads, median of 1 rounds",
        rf"masks of 20 languages on disk: {number} MB \(wanted: at most 25 MB\)",
        rf"to a language and back: {number} ms the first time, {number} ms when it is cached "
        rf"\({number} ms of CPU time\), as the last 8 are in 0 MB each",
        rf"6 batches of 2 x 0.5 s: {took}",
        rf"6 batches of 1 x 0.5 s: {took}",
    ]
    assert len(lines) == len(expected)
    assert all(map(re.fullmatch, expected, lines)), lines


def test_a_switch_that_leaves_a_language_behind_is_found(monkeypatch, capsys):
    right, before = Pathways.applied, ["language 0"]

    @contextmanager
    def late(self, language):
        before.append(language)
        with right(self, before[-2]):
            yield

    monkeypatch.setattr(Pathways, "applied", late)
    assert cli.main(SMALL) == 1
    assert "switching between languages changes their hypotheses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--batches", "1"], 1, "--batches 1: give at least 2"),
        (["--languages", "1"], 1, "--languages 1: give at least 2"),
        (["--utterances", "0"], 2, "--utterances"),
        (["--seconds", "0"], 1, "--seconds 0.0: give more than 0"),
        (["--sparsity", "1.5"], 1, "1.5 is no sparsity"),
    ],
)
def test_wrong_words_are_refused(words, status, message, capsys):
    try:
        got = cli.main([*SMALL, *words])
    except SystemExit as stop:
        got = stop.code
    assert got == status
    assert message in capsys.readouterr().err
