"""Connected digits: what is joined, by ear of a Fourier transform, and ``run.sh`` around it."""

import argparse
import importlib
import itertools
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import load_manifest

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "egs" / "fsdd" / "ASR"
GENUINE = Path(os.environ.get("ASRPRUNE_FSDD", ROOT.parent / "shared" / "data" / "fsdd"))
NUMBERS = {"test": (0, 4), "dev": (5, 7), "train": (8, 9, 10)}  # of the takes of each digit
SECONDS = {"anna": 0.2, "bert": 0.25}
TONE = {"test": 300, "dev": 900, "train": 1500}  # Hz, steps of 12 * 50; a digit adds 50
WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")


@pytest.fixture(scope="module", autouse=True)
def local():
    """The recipe's own scripts can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE / "local")
        yield


@pytest.fixture(scope="module")
def connect(local):
    return importlib.import_module("connect")


@pytest.fixture(scope="module")
def takes(local):
    return importlib.import_module("takes")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Takes that are tones, in the folder and under the names of the real corpus."""
    folder = tmp_path_factory.mktemp("corpus") / "recordings"
    folder.mkdir()
    for (speaker, seconds), digit in itertools.product(SECONDS.items(), range(10)):
        time = np.arange(round(8000 * seconds)) / 8000
        for split, numbers in NUMBERS.items():
            wave = 0.5 * np.sin(2 * np.pi * (TONE[split] + 50 * digit) * time)
            for number in numbers:
                soundfile.write(folder / f"{digit}_{speaker}_{number}.wav", wave, 8000)
    return folder.parent


def options(corpus: Path, folder: Path, **changes) -> argparse.Namespace:
    given = {
        "train_hours": 0.02,
        "train_takes": None,
        "dev_uses": 2,
        "test_uses": 3,
        "snr_db": None,
        "seed": 0,
        **changes,
    }
    return argparse.Namespace(
        corpus=corpus, audio_dir=folder / "audio", manifest_dir=folder / "manifests", **given
    )


@pytest.fixture(scope="module")
def joined(connect, corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("joined")
    connect.connect(options(corpus, folder))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Content of the audio and the manifests, by path; folders' names in manifests apart."""
    audio = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix == ".flac"
    }
    entries = {
        path.name: [{**entry.to_dict(), "sources": None} for entry in load_manifest(path)]
        for path in folder.rglob("*.jsonl.gz")
    }
    return {**audio, **{name: repr(entry).encode() for name, entry in entries.items()}}


def heard(wave: np.ndarray) -> tuple[list[tuple[str, int]], list[float], list[float]]:
    """(split, digit) of each tone, the tones' seconds, and those of the silences between."""
    loud = np.flatnonzero(np.abs(wave) > 0.02)
    ends = np.flatnonzero(np.diff(loud) > 800)  # at 16 kHz; a tone crosses zero faster than that
    starts = [loud[0], *loud[ends + 1]]
    stops = [*loud[ends], loud[-1]]
    said = []
    for start, stop in zip(starts, stops, strict=True):
        spectrum = np.abs(np.fft.rfft(wave[start:stop], 32000))
        tone = 0.5 * spectrum.argmax()
        kind, digit = divmod(round((tone - 300) / 50), 12)
        said.append((list(TONE)[kind], digit))
    lengths = [(stop - start) / 16000 for start, stop in zip(starts, stops, strict=True)]
    pauses = [(b - a) / 16000 for a, b in zip(stops, starts[1:], strict=False)]
    return said, lengths, pauses


@pytest.mark.parametrize("split", NUMBERS)
def test_what_is_heard_is_what_the_manifests_say(split, joined):
    recordings = load_manifest(joined / "manifests" / f"fsdd_recordings_{split}.jsonl.gz")
    supervisions = load_manifest(joined / "manifests" / f"fsdd_supervisions_{split}.jsonl.gz")
    assert len(recordings) == len(supervisions) > 5
    for recording, supervision in zip(recordings, supervisions, strict=True):
        assert recording.id == supervision.id == supervision.recording_id
        wave, rate = soundfile.read(recording.sources[0].source)
        assert (rate, len(wave)) == (16000, recording.num_samples)
        assert supervision.duration == recording.duration == len(wave) / 16000
        said, lengths, pauses = heard(wave)
        assert {name for name, _ in said} == {split}
        assert " ".join(WORDS[digit] for _, digit in said) == supervision.text
        assert 3 <= len(said) <= 8
        assert all(0.098 < pause < 0.302 for pause in pauses)
        assert lengths == pytest.approx([SECONDS[supervision.speaker]] * len(said), abs=0.003)


def test_pauses_differ(connect, takes, corpus):
    rows = list(connect.utterances(takes.find_takes(corpus), "all", 0, 2))
    pauses = np.array([pause / 8000 for row in rows for pause in row.pauses])
    assert pauses.min() < 0.12 and pauses.max() > 0.28
    assert abs(pauses.mean() - 0.2) < 0.02


def test_takes_are_used_equally_often_in_other_sequences(connect, takes, corpus):
    own = [take for take in takes.find_takes(corpus) if take.split == "train"]
    assert {take.number for take in own} == set(NUMBERS["train"])
    rows = list(connect.utterances(own, "train", 0, 5))
    used = Counter(take for row in rows for take in row.takes)
    assert used == dict.fromkeys(own, 5)
    assert len({row.takes for row in rows}) == len({row.id for row in rows}) == len(rows)
    assert all(len({take.speaker for take in row.takes}) == 1 for row in rows)
    first = itertools.takewhile(lambda row: "-004-" not in row.id, rows)
    used = Counter(take for row in first for take in row.takes)
    assert max(used.values()) - min(used.values()) <= 1


def test_hours_are_met_and_more_hold_less(connect, corpus, joined, tmp_path):
    seconds = sum(
        r.duration for r in load_manifest(joined / "manifests/fsdd_recordings_train.jsonl.gz")
    )
    assert 72 <= seconds < 72 + 8 * 0.25 + 7 * 0.3
    connect.connect(options(corpus, tmp_path, train_hours=0.03))
    less, more = files(joined / "audio"), files(tmp_path / "audio")
    assert less.items() < more.items()


def test_a_killed_run_goes_on_to_the_same_bytes(connect, corpus, joined, tmp_path):
    connect.connect(options(corpus, tmp_path))
    assert files(tmp_path) == files(joined)
    audio = sorted(tmp_path.rglob("*.flac"))
    for path in (*audio[::3], *tmp_path.rglob("*.jsonl.gz")):
        path.unlink()
    (audio[0].parent / f".tmp-host-1-{audio[0].name}").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac") if path in audio}
    connect.connect(options(corpus, tmp_path))
    assert {name: c for name, c in files(tmp_path).items() if ".tmp-" not in name} == files(joined)
    assert kept.items() <= {path: path.stat().st_mtime_ns for path in audio}.items()


def test_another_seed_leaves_nothing_of_the_first(connect, corpus, joined, tmp_path):
    connect.connect(options(corpus, tmp_path))
    connect.connect(options(corpus, tmp_path, seed=1))
    assert not files(tmp_path / "audio").items() & files(joined / "audio").items()


def test_noise_is_as_loud_as_asked(connect, corpus, joined, tmp_path):
    connect.connect(options(corpus, tmp_path, snr_db=[0.0, 0.0]))
    for path in sorted((tmp_path / "audio").rglob("*.flac"))[:5]:
        noisy, rate = soundfile.read(path)
        clean, _ = soundfile.read(joined / path.relative_to(tmp_path))
        assert rate == 16000 and len(noisy) == len(clean)
        # speech is half of the power
        assert np.corrcoef(noisy, clean)[0, 1] == pytest.approx(0.5**0.5, abs=0.02)


def test_fewer_takes_to_train_on_are_more_to_test_on(connect, takes, corpus, joined, tmp_path):
    connect.connect(options(corpus, tmp_path))
    connect.connect(options(corpus, tmp_path, train_takes=2))  # in place of the audio there
    assert (
        not files(tmp_path / "audio").items()
        & {
            name: content for name, content in files(joined / "audio").items() if "train" in name
        }.items()
    )
    for split, numbers in (("train", {8, 9}), ("dev", {5, 7}), ("test", {0, 4, 10})):
        own = [take for take in takes.find_takes(corpus) if take.split_with(2) == split]
        assert {take.number for take in own} == numbers
    said = load_manifest(tmp_path / "manifests/fsdd_supervisions_test.jsonl.gz")
    uses, speakers, digits, numbers = 3, 2, 10, 3
    assert sum(len(one.text.split()) for one in said) == uses * speakers * digits * numbers


def test_both_ways_to_name_a_take(takes):
    one = takes.take_of(Path("7_george_12.wav"))
    other = takes.take_of(Path("george-7-12.flac"))
    assert (one.speaker, one.digit, one.number, one.split) == ("george", 7, 12, "train")
    assert (other.speaker, other.digit, other.number) == ("george", 7, 12)


def refused(connect, monkeypatch, capsys, *words) -> str:
    """The one line of an error."""
    monkeypatch.setattr(sys, "argv", ["connect", *map(str, words)])
    assert connect.main() == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    return line


def damage(path: Path, kind: str) -> str:
    """Do something to a copy of the corpus; what the message is to say."""
    first = path / "recordings" / "0_anna_8.wav"
    if kind == "missing":
        path.unlink()
        return "git clone https://github.com/Jakobovski/free-spoken-digit-dataset"
    copy = {take.name: take.read_bytes() for take in path.glob("recordings/*")}
    path.unlink()
    first.parent.mkdir(parents=True)
    for name, content in copy.items():
        (first.parent / name).write_bytes(content)
    if kind == "strange name":
        first.rename(first.with_name("noise.wav"))
        return "noise.wav is no take"
    if kind == "twice":
        (path / "anna-0-08.flac").touch()
        return "are the same take"
    if kind == "not whole":
        for take in first.parent.glob("3_bert_[57].wav"):
            take.unlink()
        return "bert has no take of 3 for the split dev"
    if kind == "empty":
        for take in first.parent.iterdir():
            take.unlink()
        return "holds no takes"
    if kind == "cut off":
        first.write_bytes(b"RIFF")
        return f"{first} cannot be read"
    soundfile.write(first, np.zeros(100), 16000)
    return f"{first} holds 100 samples in 1 channels at 16000 Hz"


@pytest.mark.parametrize(
    "kind", ["missing", "strange name", "twice", "not whole", "empty", "cut off", "another rate"]
)
def test_a_corpus_that_is_not_as_it_should_be(kind, connect, corpus, tmp_path, monkeypatch, capsys):
    (tmp_path / "fsdd").symlink_to(corpus)
    said = damage(tmp_path / "fsdd", kind)
    words = ["--audio-dir", tmp_path / "audio", tmp_path / "fsdd", tmp_path / "manifests"]
    assert said in refused(connect, monkeypatch, capsys, *words)
    assert not (tmp_path / "manifests").exists()


def test_wrong_options(connect, corpus, tmp_path, monkeypatch, capsys):
    words = [corpus, tmp_path / "manifests", "--audio-dir", corpus]
    for more, said in (
        (["--train-hours", "0"], "--train-hours must be above 0"),
        (["--dev-uses", "0"], "--dev-uses must be at least 1"),
        (["--test-uses", "0"], "--test-uses must be at least 1"),
        (["--snr-db", "5", "4"], "--snr-db 5 4: the first must not be above the second"),
        (["--train-takes", "0"], "--train-takes must be at least 1"),
        ([], "holds other files: choose another --audio-dir"),
    ):
        assert said in refused(connect, monkeypatch, capsys, *words, *more)


def run(*words, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [RECIPE / "run.sh", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done


CONFIGS = [path for path in sorted(RECIPE.glob("conf/*.yaml")) if "compare" not in path.name]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_dry_run_loads_the_configuration(config):
    out = run("--dry-run", "true", "--config", config, "--epochs", 3).stdout
    for command in ("python3 local/connect.py", "asrprune fbank", "asrprune decode"):
        assert f"\n{command} " in out
    assert f"{config}: ok, " in out.splitlines()[-1]


def test_a_missing_copy_is_named_by_stage_0(tmp_path):
    errors = run("--download-dir", tmp_path, "--data-dir", tmp_path / "data", code=1).stderr
    assert f"{tmp_path}/fsdd does not exist" in errors and "git clone" in errors
    assert "Traceback" not in errors


@pytest.mark.skipif(not GENUINE.is_dir(), reason="the Free Spoken Digit Dataset is not here")
def test_genuine_files_become_cuts(tmp_path):
    (tmp_path / "fsdd").symlink_to(GENUINE)
    folders = ["--download-dir", tmp_path, "--data-dir", tmp_path / "data"]
    words = [*folders, "--train-hours", 0.02, "--test-uses", 1, "--jobs", 1]
    run(*words, "--stop-stage", "tokenizer")
    cuts = load_manifest(tmp_path / "data" / "valid" / "fsdd_cuts_test.jsonl.gz")
    assert sum(len(cut.supervisions[0].text.split()) for cut in cuts) == 300
    assert len({cut.supervisions[0].speaker for cut in cuts}) == 6
    assert (tmp_path / "data" / "lang_char" / "tokens.txt").is_file()
    assert "stage 4 (tokenizer) is done" in run(*words, "--stop-stage", "tokenizer").stderr
