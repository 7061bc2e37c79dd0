"""Numbers over steps: one line a reading, and none twice after a resume."""

import json
import logging
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from asrprune.base.errors import UserError
from asrprune.training.metrics import EPOCH_START, Metrics, epoch_bar, log_to_file


def write(folder, start: int, stop: int, value: float) -> None:
    """A training from step ``start`` that was stopped after ``stop``."""
    metrics = Metrics(folder, start)
    for step in range(start + 1, stop + 1):
        metrics.write("train", step, loss=value + step)
        if step % 3 == 0:
            metrics.write("dev", step, one=value, other=-value)
    metrics.close()


def lines(folder) -> list[dict]:
    text = (folder / "log" / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def scalars(folder, tag: str) -> dict[int, float]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def test_a_resume_takes_back_what_came_after_its_checkpoint(tmp_path):
    write(tmp_path, 0, 8, 0.0)
    write(tmp_path, 5, 9, 100.0)
    train = {entry["step"]: entry["loss"] for entry in lines(tmp_path) if entry["kind"] == "train"}
    dev = [entry for entry in lines(tmp_path) if entry["kind"] == "dev"]
    expected = {step: step + (100.0 if step > 5 else 0.0) for step in range(1, 10)}
    assert train == expected == scalars(tmp_path, "train/loss")
    assert [entry["step"] for entry in lines(tmp_path) if entry["kind"] == "train"] == [
        *range(1, 10)
    ]
    assert dev == [
        {"kind": "dev", "step": 3, "one": 0.0, "other": 0.0},
        {"kind": "dev", "step": 6, "one": 100.0, "other": -100.0},
        {"kind": "dev", "step": 9, "one": 100.0, "other": -100.0},
    ]
    assert scalars(tmp_path, "dev/one") == {3: 0.0, 6: 100.0, 9: 100.0}
    write(tmp_path, 4, 4, 0.0)  # stopped before its first step
    assert max(scalars(tmp_path, "train/loss")) == 4 and lines(tmp_path)[-1]["step"] == 4


def test_a_resume_within_a_second_is_read_last(tmp_path):
    """Names of event files end in a counter: "...10" sorts before "...9"."""
    for start in range(12):
        write(tmp_path, start, start + 1, 100.0 * start)
    assert scalars(tmp_path, "train/loss") == {n + 1: 101.0 * n + 1 for n in range(12)}


def test_what_an_epochs_start_writes_is_there_once(tmp_path):
    """A training that was stopped between epochs, at step 4, begins the second one again."""
    metrics = Metrics(tmp_path, 0)
    for step, kind in ((0, EPOCH_START), (4, "train"), (4, "dev"), (4, EPOCH_START), (5, "train")):
        metrics.write(kind, step, x=1)
    metrics.close()
    again = Metrics(tmp_path, 4)
    again.write(EPOCH_START, 4, x=2)
    again.close()
    assert [(entry["kind"], entry["step"], entry["x"]) for entry in lines(tmp_path)] == [
        (EPOCH_START, 0, 1),
        ("train", 4, 1),
        ("dev", 4, 1),
        (EPOCH_START, 4, 2),
    ]


@pytest.mark.parametrize("keep", [1, 10, 25])
def test_a_line_cut_short_is_dropped(tmp_path, keep):
    write(tmp_path, 0, 2, 0.0)
    path = tmp_path / "log" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + json.dumps({"kind": "train", "step": 2, "loss": 1})[:keep])
    write(tmp_path, 2, 3, 0.0)
    assert [entry["step"] for entry in lines(tmp_path) if entry["kind"] == "train"] == [1, 2, 3]
    assert path.read_text().startswith(whole)


def test_lines_are_there_at_once(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.write("train", 1, loss=0.5)
    assert lines(tmp_path) == [{"kind": "train", "step": 1, "loss": 0.5}]
    metrics.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is_one_message(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.file.close()
    metrics.file = open("/dev/full", "a")  # noqa: SIM115 (closed by metrics)
    for action in (lambda: metrics.write("train", 1, loss=0.5), metrics.close):
        with pytest.raises(UserError, match="cannot write .*metrics.jsonl: No space left"):
            action()
    metrics.close()
    assert metrics.file.closed


def test_log_file_goes_on_and_ends(tmp_path):
    path = tmp_path / "log" / "train.log"
    for text in ("first", "second"):
        handler = log_to_file(path)
        logging.getLogger("x").warning(text)
        logging.getLogger().removeHandler(handler)
        handler.close()
    logging.getLogger("x").warning("elsewhere")
    assert [line.split(": ")[-1] for line in path.read_text().splitlines()] == ["first", "second"]


def test_bar_is_silent_without_a_terminal(capsys):
    for shown in (True, False):
        with epoch_bar(1, 2, 100.0, 20.0, shown) as bar:
            bar.update(30.0)
    assert capsys.readouterr().err == ""
