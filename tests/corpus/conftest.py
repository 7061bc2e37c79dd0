"""Tiny corpora of noise, with manifests as ``lhotse prepare`` leaves them."""

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
