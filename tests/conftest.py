"""A tiny corpus that went through the real stages: tones for speech, a letter for each pitch."""

import argparse
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import settings

from tests.exhaustive import EXHAUSTIVE

# The same cases in each run, so that a change is judged by itself. To look for new ones:
# tools/test.sh --hypothesis-profile default
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")

LETTERS = "abcdefgh"
RATE = 16000
HEAVY = ("tests/training/", "tests/compare/", "tests/export/", "tests/recipes/")


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="run tests/exhaustive.py's as well")


def pytest_collection_modifyitems(config, items):
    """Skip what takes long, and put first the files whose tests take longest."""
    if not config.getoption("exhaustive"):
        skip = pytest.mark.skip(reason="runs with --exhaustive alone")
        for item in items:
            if item.nodeid in EXHAUSTIVE:
                item.add_marker(skip)
    items.sort(key=lambda item: not item.nodeid.startswith(HEAVY))


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    """Started in the background of a script, Python ignores Ctrl-C, and so would what it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


def call_verb(module, *words: str | Path) -> None:
    """Run a verb as the command line would, in this process."""
    from asrprune.base.arguments import Parser

    parser: argparse.ArgumentParser = Parser()
    module.add_arguments(parser)
    module.main(parser.parse_args([str(word) for word in words]))


def tone_speech(text: str, rng: np.random.Generator) -> np.ndarray:
    """0.2 s of a tone for each letter, a little noise."""
    times = np.arange(int(0.2 * RATE)) / RATE
    parts = [np.zeros(RATE // 10)]
    for letter in text:
        pitch = 0 if letter == " " else 300 * 1.3 ** LETTERS.index(letter.lower())
        parts.append(0.3 * np.sin(2 * np.pi * pitch * times) if pitch else np.zeros(len(times)))
    audio = np.concatenate(parts)
    return (audio + rng.normal(0, 0.01, len(audio))).astype(np.float32)


def write_tone_manifests(folder: Path, split: str, count: int, seed: int) -> None:
    """Recordings and supervisions of a split, as ``lhotse prepare`` leaves them."""
    import soundfile
    from lhotse import Recording, RecordingSet, SupervisionSegment, SupervisionSet

    rng = np.random.default_rng(seed)
    recordings, supervisions = [], []
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = f"{split}-{index:03d}"
        words = ["".join(rng.choice(list(LETTERS), rng.integers(1, 4))) for _ in range(3)]
        text = " ".join(words[: rng.integers(1, 4)]).upper()
        path = folder / "audio" / f"{name}.wav"
        soundfile.write(path, tone_speech(text.lower(), rng), RATE)
        recording = Recording.from_file(path, recording_id=name)
        recordings.append(recording)
        supervisions.append(
            SupervisionSegment(
                id=name,
                recording_id=name,
                start=0.0,
                duration=recording.duration,
                text=text,
                speaker=f"s{index % 3}",
                language="English",
            )
        )
    manifests = folder / "manifests"
    manifests.mkdir(exist_ok=True)
    RecordingSet.from_recordings(recordings).to_file(
        manifests / f"tones_recordings_{split}.jsonl.gz"
    )
    SupervisionSet.from_segments(supervisions).to_file(
        manifests / f"tones_supervisions_{split}.jsonl.gz"
    )


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> SimpleNamespace:
    """As of `prepare_tones`, with ``noise`` (a cut manifest) for augmentation."""
    return prepare_tones(tmp_path_factory.mktemp("tiny"), {"train": 36, "dev": 6, "noise": 3})


def prepare_tones(root: Path, sizes: dict[str, int]) -> SimpleNamespace:
    """``manifests`` (validated cuts), ``lang`` (characters), and features of all splits."""
    from asrprune.data import fbank, tokenizer, validate

    for seed, (split, count) in enumerate(sizes.items()):
        write_tone_manifests(root, split, count, seed)
    features = ("--corpus", "tones", "--manifest-dir", root / "manifests")
    call_verb(
        fbank, *features, "--out-dir", root / "fbank", "--splits", *sizes, "--jobs", "1",
    )  # fmt: skip
    valid = root / "valid"
    call_verb(
        validate, "--corpus", "tones", "--manifest-dir", root / "fbank", "--out-dir", valid,
        "--train", "train", "--eval", "dev", "--num-bins", "3", "--min-seconds", "0.1",
    )  # fmt: skip
    lang = root / "lang_char"
    call_verb(
        tokenizer, "--manifest", valid / "tones_cuts_train.jsonl.gz", "--type", "char",
        "--out-dir", lang,
    )  # fmt: skip
    noise = root / "fbank" / "tones_cuts_noise.jsonl.gz"
    return SimpleNamespace(root=root, manifests=valid, lang=lang, noise=noise)


@pytest.fixture(scope="session")
def models(tiny_corpus, tmp_path_factory) -> dict[str, Path]:
    """``averaged.pt`` of a training without masks, of one to one sparsity, and of a supernet.

    By ``weight_pruning.method``; not to be changed.
    """
    import asrprune.cli
    from asrprune.training.distributed import Ranks
    from asrprune.training.train import build_trainer

    schedule = {"final": 0.8, "start": 0.1, "end": 0.6, "freeze": 0.7, "refresh_interval": 3}
    paths = {}
    for method in ("none", "gradual", "supernet"):
        folder = tmp_path_factory.mktemp(method)
        pruning = {"method": method, "schedule": schedule}
        config = tiny_config(tiny_corpus, weight_pruning=pruning, data__dev=[])
        alone = Ranks(0, 1, torch.device("cpu"))
        trainer = build_trainer(config, alone, folder, tiny_corpus.manifests, tiny_corpus.lang)
        assert trainer.run() == 0
        assert asrprune.cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
        paths[method] = folder / "averaged.pt"
    return paths


def tiny_config(corpus: SimpleNamespace, **options):
    """A config of a small Conformer on the tiny corpus; ``options`` as dotted keys with ``__``."""
    from asrprune.config import config_from_dict

    values = {
        "data": {
            "corpus": "tones", "dev": ["dev"], "max_duration": 8.0, "num_workers": 0,
            "noise": {"cuts": str(corpus.noise)},
        },
        "model": {
            "encoder_options": {
                "dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "kernel_size": 7,
            },
            "predictor_options": {"dim": 16},
            "joiner_dim": 16,
        },
        "loss": {"warmup": 0.2},
        "training": {"epochs": 2, "average_period": 2, "log_interval": 3, "device": "cpu"},
    }  # fmt: skip
    for key, value in options.items():
        place = values
        *path, name = key.split("__")
        for part in path:
            place = place.setdefault(part, {})
        place[name] = value
    return config_from_dict(values)
