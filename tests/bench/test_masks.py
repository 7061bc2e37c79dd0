"""``asrprune bench masks``, on a model that takes no time."""

import re

import pytest

from asrprune import cli

SMALL = ["bench", "masks", "--layers", "2", "--dim", "32", "--ffn_dim", "64", "--threads", "1"]


def test_every_cost_has_a_line_and_its_target(capsys):
    assert cli.main([*SMALL, "--rounds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    number = r"[\d.]+"
    expected = [
        r"Emformer of 0.0 M parameters, 0.0 M of them in 8x1 blocks of 10 layers; torch \S+, "
        "1 threads, median of 2 rounds",
        rf"to rank all blocks: {number} ms \(wanted: at most 1000 ms\)",
        rf"to switch to a cached sub-network and back: {number} ms \(wanted: at most 40 ms\)",
        rf"20 named masks on disk: {number} MB \(wanted: at most 25 MB\); levels, .* {number} MB",
        rf"masks of a supernet's step: {number} ms to apply, {number} ms for the gate",
        rf"optimiser's step, the same mask each time: gated {number} ms, plain .* ratio {number}",
        rf"optimiser's step, masks of a supernet: gated {number} ms, plain .* ratio {number}",
    ]
    assert len(lines) == len(expected)
    assert all(map(re.fullmatch, expected, lines)), lines


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--block", "8by1"], 2, "--block=8by1: must be rows x columns"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--block", "24x1"], 1, "24x1 does not divide"),
        (["--sparsity", "1.5"], 1, "1.5 is no sparsity"),
    ],
)
def test_wrong_words_are_refused(words, status, message, capsys):
    try:
        got = cli.main([*SMALL, "--rounds", "1", *words])
    except SystemExit as stop:
        got = stop.code
    assert got == status
    assert message in capsys.readouterr().err
