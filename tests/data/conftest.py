"""Tiny corpora of noise, with manifests as ``lhotse prepare`` leaves them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

RATE = 16000


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def make_corpus(tmp_path, monkeypatch) -> Callable[..., Path]:
    """A function that writes a corpus of noise into the folder ``manifests``.

    The working folder becomes ``tmp_path``, so that paths in manifests are relative.
    """
    monkeypatch.chdir(tmp_path)

    def write(
        texts: list[str],
        split: str = "train",
        seconds: tuple[float, ...] = (1.2, 2.0, 1.5),
        suffix: str = ".flac",
        rate: int = RATE,
    ) -> Path:
        rng = np.random.default_rng(len(texts))
        folder = Path("audio")
        folder.mkdir(exist_ok=True)
        recordings, supervisions = [], []
        for index, text in enumerate(texts):
            name = f"{split}-{index:02d}"
            path = folder / f"{name}{suffix}"
            count = int(rate * seconds[index % len(seconds)])
            soundfile.write(path, rng.normal(0, 0.05 + 0.01 * index, count), rate)
            recording = Recording.from_file(path, recording_id=name)
            recordings.append(recording)
            supervisions.append(
                SupervisionSegment(
                    id=name,
                    recording_id=name,
                    start=0.0,
                    duration=recording.duration,
                    text=text,
                    speaker=f"speaker{index % 2}",
                )
            )
        return write_manifests(recordings, supervisions, split)

    return write


@pytest.fixture
def importer(tmp_path, monkeypatch) -> Callable[..., dict[str, dict]]:
    """A function that runs ``asrprune manifests`` for the corpus "c" into the folder ``out``.

    It returns the supervisions of the split ``train`` by their ids, each with its recording as the
    key ``audio``. The working folder becomes ``tmp_path``.
    """
    from asrprune.data.importers import verb
    from asrprune.data.manifests import read_lines
    from tests.conftest import call_verb

    monkeypatch.chdir(tmp_path)

    def run(way: str, path: str | Path, *words: str, split: str = "train") -> dict[str, dict]:
        options = ("--corpus", "c", "--out-dir", "out", "--jobs", "1", *words)
        call_verb(verb, "--from", way, f"{split}={path}", *options)
        read = {
            kind: [json.loads(line) for line in read_lines(f"out/c_{kind}_{split}.jsonl.gz", "")]
            for kind in ("recordings", "supervisions")
        }
        recordings = {recording["id"]: recording for recording in read["recordings"]}
        return {
            s["id"]: {**s, "audio": recordings[s["recording_id"]]} for s in read["supervisions"]
        }

    return run


def write_audio(path: str | Path, seconds: float, rate: int = RATE, channels: int = 1) -> None:
    """A file of noise."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).normal(0, 0.05, (round(rate * seconds), channels))
    soundfile.write(path, noise, rate)


@pytest.fixture
def manifests() -> Callable[..., Path]:
    """The function that writes given recordings and supervisions as the manifests of a split."""
    return write_manifests


def write_manifests(
    recordings: list[Recording], supervisions: list[SupervisionSegment], split: str
) -> Path:
    """Write both manifests of a split of the corpus "noise"; returns their folder."""
    folder = Path("manifests")
    folder.mkdir(exist_ok=True)
    RecordingSet.from_recordings(recordings).to_file(folder / f"noise_recordings_{split}.jsonl.gz")
    SupervisionSet.from_segments(supervisions).to_file(
        folder / f"noise_supervisions_{split}.jsonl.gz"
    )
    return folder
