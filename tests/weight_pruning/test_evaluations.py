"""The evaluations' log: whole lines, its identity, and files that are something else."""

import errno
import math
import os

import pytest

from asrprune.base.errors import UserError
from asrprune.weight_pruning.search.evaluations import EvaluationLog

LAYERS = ["encoder.0.weight", "encoder.1.weight"]
IDENTITY = {"model": "1f", "data": {"cuts": 20, "seed": (1, 2)}}
VALUES = {(0.0, 0.1): 0.1 + 0.2, (0.9, 0.0): 1e-300, (0.5, 0.5): math.inf, (0.3, 0.3): -2.0}


def unused(choice):
    raise AssertionError(choice)


def fill(path):
    """Evaluate some, the third of which is of no use."""

    def fitness(choice):
        value = VALUES[tuple(choice.values())]
        return math.nan if math.isinf(value) else value

    with EvaluationLog(path, LAYERS, fitness, IDENTITY) as evaluations:
        return {key: evaluations.evaluate(key) for key in VALUES}


def test_remembers_every_bit(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    filled = fill(path)
    assert {key: value for key, (value, _) in filled.items()} == VALUES
    with EvaluationLog(path, LAYERS, unused, IDENTITY) as evaluations:
        assert {key: evaluations.evaluate(key) for key in VALUES} == filled
    assert path.read_bytes().count(b"\n") == 1 + len(VALUES)


def test_memory_alone():
    calls = []
    with EvaluationLog(None, LAYERS, lambda choice: calls.append(choice) or 3) as evaluations:
        assert [evaluations.evaluate((0.5, 0.1))[0] for _ in range(3)] == [3.0] * 3
    assert calls == [{LAYERS[0]: 0.5, LAYERS[1]: 0.1}]


def test_cut_at_every_byte(tmp_path, monkeypatch):
    """What is left are the whole lines, and the next evaluation stands on a line of its own."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 2,000 of them would last
    path = tmp_path / "log.jsonl"
    fill(path)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        whole = max(content[:end].count(b"\n") - 1, 0)
        calls = []
        with EvaluationLog(path, LAYERS, lambda _, c=calls: c.append(1) or 7, IDENTITY) as log:
            for place, (key, value) in enumerate(VALUES.items()):
                assert log.evaluate(key)[0] == (value if place < whole else 7)
        assert len(calls) == len(VALUES) - whole
        assert path.read_bytes().count(b"\n") == 1 + len(VALUES)
        with EvaluationLog(path, LAYERS, unused, IDENTITY) as log:
            assert log.evaluate((0.3, 0.3))[0] == (7 if whole < 4 else -2.0)


@pytest.mark.parametrize(
    "layers, identity, message",
    [
        (LAYERS, {**IDENTITY, "model": "2e"}, "of model=1f, not model=2e"),
        (LAYERS, {"model": "1f"}, "of data=.*, not data=None"),
        (LAYERS, {**IDENTITY, "epoch": 3}, "of epoch=None, not epoch=3"),
        (LAYERS[::-1], IDENTITY, "of 2 layers that are not these 2"),
        ([*LAYERS, "c"], IDENTITY, "of 2 layers that are not these 3"),
    ],
)
def test_evaluations_of_something_else(tmp_path, layers, identity, message):
    path = tmp_path / "log.jsonl"
    fill(path)
    content = path.read_bytes()
    with pytest.raises(UserError, match=f"{path} holds evaluations {message}: name another"):
        EvaluationLog(path, layers, unused, identity)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"{}\n", b"[1]\nhalf", b"text\n" * 3, b"\xff\n"]
)
def test_other_files_stay_as_they_are(tmp_path, content):
    path = tmp_path / "averaged.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no log of evaluations"):
        EvaluationLog(path, LAYERS, unused)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [b"", b"{}", b"\0\0", b'{"sparsity": [0.1], "fitness": 1}'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "log.jsonl"
    fill(path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = damage
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"log\.jsonl:3 is damaged"):
        EvaluationLog(path, LAYERS, unused, IDENTITY)


def test_one_search_at_a_time(tmp_path):
    path = tmp_path / "log.jsonl"
    with (
        EvaluationLog(path, LAYERS, unused),
        pytest.raises(UserError, match="in use by another search"),
    ):
        EvaluationLog(path, LAYERS, unused)
    with EvaluationLog(path, LAYERS, unused):
        pass


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    fill(path)
    content = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with EvaluationLog(path, LAYERS, lambda _: 1.0, IDENTITY) as evaluations:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="Free some space"):
            evaluations.evaluate((0.7, 0.7))
        monkeypatch.undo()
        assert path.read_bytes() == content
        assert evaluations.evaluate((0.7, 0.7))[0] == 1.0
    assert path.read_bytes().startswith(content) and len(path.read_bytes()) > len(content)
