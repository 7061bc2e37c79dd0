"""A Slurm job that has to go is requeued, and goes on where it was."""

import os
import signal
import subprocess

import pytest

from tests.recipes.conftest import ROOT

SCRIPT = ROOT / "tools" / "slurm.sh"
WORDS = ("--rehearsal", "true", "--jobs", "1")


@pytest.fixture
def job(librispeech, tmp_path):
    """Starts ``slurm.sh`` of a recipe, with a stand-in for Slurm's scontrol."""
    scontrol = librispeech.root / ".venv" / "bin" / "scontrol"
    scontrol.write_text(f'#!/usr/bin/env bash\necho "$*" >>{tmp_path}/scontrol.log\n')
    scontrol.chmod(0o755)

    def start(*words, **environment):
        path = f"{scontrol.parent}:{os.environ['PATH']}"
        given = {"PATH": path, "FAKE_LOG": str(librispeech.log), "SLURM_JOB_ID": "7"}
        return subprocess.Popen(
            ["bash", SCRIPT, *words],
            cwd=librispeech.root,
            env={**os.environ, **given, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def requests(tmp_path):
    log = tmp_path / "scontrol.log"
    return log.read_text().splitlines() if log.exists() else []


def test_a_job_that_is_told_to_end_goes_on(job, librispeech, tmp_path):
    process = job("egs/corpus/ASR", *WORDS, FAKE_HANG="train")
    child = librispeech.wait_for_hang()
    process.send_signal(signal.SIGTERM)  # to the script alone, as Slurm does
    _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert "stopped in stage 5 (train)" in told
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert requests(tmp_path) == ["requeue 7"]
    librispeech.commands()
    process = job("egs/corpus/ASR", *WORDS)
    shown, told = process.communicate(timeout=60)
    assert process.returncode == 0 and "%WER" in shown, told
    verbs = ("train", "average", "decode", "score")
    assert librispeech.commands() == [f"asrprune {verb}" for verb in verbs]
    assert requests(tmp_path) == ["requeue 7"]


def test_a_job_that_fails_is_not_tried_again(job, tmp_path):
    process = job("egs/corpus/ASR", *WORDS, FAKE_FAIL="train")
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1 and "told to fail" in told
    assert requests(tmp_path) == []


def test_no_recipe(job):
    process = job("egs/corpse/ASR")
    assert process.wait(timeout=30) == 2
    assert "egs/corpse/ASR/run.sh does not exist" in process.stderr.read()
