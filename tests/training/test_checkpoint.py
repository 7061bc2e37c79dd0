"""Checkpoints are whole or absent, and a damaged one is passed over."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training.checkpoint import (
    also_as,
    latest_checkpoint,
    load_checkpoint,
    numbered,
    remove_old_checkpoints,
    save_checkpoint,
)


def state(step: int) -> dict:
    return {"model": {"w": torch.full((1000,), float(step))}, "step": step}


def test_round_trip_and_latest(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 10, 100):
        save_checkpoint(state(step), tmp_path / f"checkpoint-{step}.pt")
    path, loaded = latest_checkpoint(tmp_path)
    assert path.name == "checkpoint-100.pt" and loaded["step"] == 100
    assert torch.equal(loaded["model"]["w"], state(100)["model"]["w"])
    remove_old_checkpoints(tmp_path, 2)
    assert [p.name for p in numbered(tmp_path, "checkpoint")] == [
        "checkpoint-10.pt",
        "checkpoint-100.pt",
    ]


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_truncated_falls_back_and_says_so(tmp_path, size, caplog):
    save_checkpoint(state(1), tmp_path / "checkpoint-1.pt")
    save_checkpoint(state(2), tmp_path / "checkpoint-2.pt")
    os.truncate(tmp_path / "checkpoint-2.pt", size)
    path, loaded = latest_checkpoint(tmp_path)
    assert loaded["step"] == 1 and path.name == "checkpoint-1.pt"
    assert "checkpoint-2.pt is damaged" in caplog.text and "the one before" in caplog.text
    assert "internal miniz error" not in caplog.text  # torch's advice to its developers


def test_only_damaged_checkpoints_is_an_error_and_not_a_fresh_start(tmp_path):
    (tmp_path / "checkpoint-5.pt").write_bytes(b"junk")
    with pytest.raises(UserError, match="none of the 1 checkpoints .* can be read"):
        latest_checkpoint(tmp_path)


def test_epochs_are_a_second_name_and_the_last_resort(tmp_path):
    save_checkpoint(state(7), tmp_path / "epoch-1.pt")
    also_as(tmp_path / "epoch-1.pt", tmp_path / "checkpoint-7.pt")
    assert os.path.samefile(tmp_path / "epoch-1.pt", tmp_path / "checkpoint-7.pt")
    (tmp_path / "checkpoint-7.pt").unlink()
    assert latest_checkpoint(tmp_path)[0].name == "epoch-1.pt"


def test_no_code_runs_on_loading(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    torch.save({"format": 1, "model": Evil()}, tmp_path / "checkpoint-1.pt")
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(tmp_path / "checkpoint-1.pt")
    assert not (tmp_path / "evil").exists()


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from asrprune.base.errors import UserError
from asrprune.training.checkpoint import save_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save_checkpoint({"model": {"w": torch.zeros(1_000_000)}}, Path(sys.argv[1]))
except UserError as error:
    sys.exit(f"{error}")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit here")
def test_full_disk_leaves_nothing(tmp_path):
    path = tmp_path / "checkpoint-2.pt"
    save_checkpoint(state(1), tmp_path / "checkpoint-1.pt")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1
    assert f"cannot write {path}" in done.stderr and "run the same command again" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-1.pt"]
