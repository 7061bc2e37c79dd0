"""The rehearsal as plain tables is a pure function of its options, complete, and a way in."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("espeakng_loader")
pytest.importorskip("num2words")

from asrprune.base.errors import UserError
from asrprune.data.importers.tables import read_rows
from asrprune.rehearsal import table as rehearsing
from asrprune.rehearsal import table_layout as layout

HOURS = 0.02  # two batches of training speech, one of each other split


def files(corpus: Path) -> dict[str, bytes]:
    """Relative path -> content of every file."""
    return {
        str(path.relative_to(corpus)): path.read_bytes()
        for path in corpus.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A tiny corpus, written undisturbed by two processes."""
    out_dir = tmp_path_factory.mktemp("rehearsal")
    rehearsing.rehearse_table(out_dir, HOURS, seed=0, jobs=2, text="numbers")
    return out_dir


def test_tables_and_audio_agree(corpus):
    rows = {split: list(read_rows(corpus / f"{split}.tsv")) for split in layout.SPLITS}
    assert {split: len(own) for split, own in rows.items()} == {"train": 16, "dev": 8, "test": 8}
    every = [row for own in rows.values() for row in own]
    assert list(every[0]) == list(layout.COLUMNS)
    assert len({row["id"] for row in every}) == 32
    assert {row["path"] for row in every} == {
        str(path.relative_to(corpus)) for path in corpus.rglob("*.wav")
    }
    for row in every:
        audio = soundfile.info(corpus / row["path"])
        assert (audio.samplerate, audio.channels) == (8000, 1)
        assert 0.15 < audio.duration / len(row["text"].split()) < 2
        assert re.fullmatch("[A-Z ]+", row["text"])
    speakers = {split: {row["speaker"] for row in own} for split, own in rows.items()}
    assert not speakers["train"] & speakers["test"] and len(speakers["train"]) == 2


def test_it_is_a_way_in(corpus, importer):
    found = importer("tables", corpus / "train.tsv")
    assert len(found) == 16
    assert json.loads(json.dumps(found)) == found


def test_killed_and_resumed_by_one_process_gives_the_same_bytes(corpus, tmp_path):
    command = [sys.executable, "-m", "asrprune.cli", "rehearse", "--layout", "table", "--text"]
    command += ["numbers", "--jobs", "1", "--out-dir", tmp_path, "--train-hours", str(HOURS)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    seen = b""
    while not re.search(rb" [1-9]\d*/", seen):  # the progress bar: a batch is done
        byte = process.stderr.read(1)
        assert byte, seen
        seen += byte
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not layout.is_finished(tmp_path)
    kept = {path: content for path, content in files(tmp_path).items() if ".tmp-" not in path}
    assert any(path.endswith(".wav") for path in kept)
    (tmp_path / "audio/train/train000/.tmp-elsewhere-1-x.wav").write_bytes(b"half")
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert files(tmp_path) == files(corpus)
    assert kept.items() <= files(tmp_path).items()


def test_a_finished_corpus_is_left_alone_and_never_mixed(corpus):
    before = files(corpus)
    rehearsing.rehearse_table(corpus, HOURS, seed=0, jobs=1, text="numbers")
    with pytest.raises(UserError, match=r"seed is 0 there and 1 here.*--out-dir"):
        rehearsing.rehearse_table(corpus, HOURS, seed=1, jobs=1, text="numbers")
    assert files(corpus) == before


def test_a_file_that_is_missing_is_made_again(corpus):
    before = files(corpus)
    next(corpus.rglob("*.wav")).unlink()
    rehearsing.rehearse_table(corpus, HOURS, seed=0, jobs=1, text="numbers")
    assert files(corpus) == before


def test_a_real_corpus_is_never_touched(tmp_path):
    (tmp_path / "train.tsv").touch()
    with pytest.raises(UserError, match="no rehearsal corpus"):
        rehearsing.rehearse_table(tmp_path, HOURS, seed=0, jobs=1)
