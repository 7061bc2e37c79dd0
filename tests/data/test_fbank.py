"""Features: equal to lhotse's own, whatever interrupts or shares the work; bad audio has a name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, Fbank, FbankConfig, Recording, SupervisionSegment

from asrprune.base.errors import UserError
from asrprune.data import audio, fbank
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.manifests import read_lines

TEXTS = ["ONE", "TWO THREE", "FOUR", "FIVE SIX", "SEVEN", "EIGHT", "NINE", "TEN"]
QUANTUM = 2**-5  # of the compressed features


def options(**changes) -> FbankOptions:
    values = {"corpus": "noise", "manifest_dir": Path("manifests"), "out_dir": Path("fbank")}
    return FbankOptions(**{**values, **changes})


def cuts(split: str = "train", folder: str = "fbank") -> list:
    return list(CutSet.from_file(f"{folder}/noise_cuts_{split}.jsonl.gz"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a stage's output, manifests uncompressed, without the folder's own name."""
    return {
        str(path.relative_to(folder)): b"".join(read_lines(path, "")).replace(
            f"{folder}/".encode(), b"OUT/"
        )
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_lhotse_agrees(cut, tolerance: float = QUANTUM) -> None:
    expected = Fbank(FbankConfig(num_filters=80)).extract(cut.load_audio(), cut.sampling_rate)
    found = cut.load_features()
    assert found.shape == expected.shape == (cut.num_frames, 80)
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(fbank, "FEW", 3)


@pytest.mark.parametrize(("suffix", "rate"), [(".flac", 16000), (".wav", 8000), (".wav", 44100)])
def test_features_are_those_of_lhotse_and_ids_those_of_utterances(make_corpus, suffix, rate):
    make_corpus(TEXTS[:3], suffix=suffix, rate=rate)
    compute_split(options(speed_perturb=True), "train")
    found = cuts()
    assert [cut.id for cut in found[:4]] == [
        "train-00", "train-00_sp0.9", "train-00_sp1.1", "train-01",
    ]  # fmt: skip
    assert [cut.supervisions[0].text for cut in found[::3]] == TEXTS[:3]
    for cut in found:
        assert cut.sampling_rate == 16000
        assert cut.features.storage_path == "fbank/noise_feats_train/part-00000.lca"
        assert_lhotse_agrees(cut)


def test_recordings_of_several_utterances_become_a_cut_each(make_corpus, manifests):
    make_corpus([], "other")
    soundfile.write("audio/long.wav", np.random.default_rng(0).normal(0, 0.1, (80000, 2)), 16000)
    recording = Recording.from_file("audio/long.wav")
    spans = {"a": (0.5, 1.25), "b": (2.0, 1.0), "c": (4.0, 1.5)}  # c reaches beyond the end
    segments = [
        SupervisionSegment(name, "long", start, duration, channel=1, text=name)
        for name, (start, duration) in spans.items()
    ]
    manifests([recording], segments, "train")
    compute_split(options(), "train")
    a, b, c = cuts()
    assert (a.id, a.start, a.duration, a.supervisions[0].start) == ("a", 0.5, 1.25, 0.0)
    assert (c.id, c.start, c.duration, c.supervisions[0].duration) == ("c", 4.0, 1.0, 1.5)
    for cut in (a, b, c):
        assert cut.load_audio().shape == (1, cut.num_samples)
        assert_lhotse_agrees(cut)


def test_two_processes_write_the_bytes_of_one(make_corpus, small_parts):
    make_corpus(TEXTS)
    for jobs in (1, 2):
        compute_split(options(out_dir=Path(f"jobs{jobs}"), speed_perturb=True, jobs=jobs), "train")
    assert contents(Path("jobs1")) == contents(Path("jobs2"))
    assert len(list(Path("jobs1").rglob("*.lca"))) == 3


KILLED = """
import os, sys
from asrprune import cli
from asrprune.data import audio
from asrprune.data import fbank
fbank.FEW = 3
calls, extract = [], audio.extract
def killed_at_the_fifth(*args):
    calls.append(args)
    return os._exit(9) if len(calls) == 5 else extract(*args)
audio.extract = killed_at_the_fifth
cli.main(sys.argv[1:])
"""

DISK_FULL = """
import resource, sys
from asrprune import cli
from asrprune.data import fbank
fbank.FEW = 3
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
sys.exit(cli.main(sys.argv[1:]))
"""
VERB = ("fbank", "--corpus", "noise", "--manifest-dir", "manifests", "--out-dir", "fbank")


def run(script: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", script, *VERB, "--splits", "train", "--jobs", "1"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_killed_and_run_again_equals_undisturbed(make_corpus, small_parts):
    make_corpus(TEXTS)
    assert run(KILLED).returncode == 9
    folder = Path("fbank/noise_feats_train")
    assert not Path("fbank/noise_cuts_train.jsonl.gz").exists()
    assert any(path.name.startswith(".tmp-") for path in folder.iterdir())
    first = (folder / "part-00000.lca").stat()
    compute_split(options(), "train")
    assert (folder / "part-00000.lca").stat().st_mtime_ns == first.st_mtime_ns  # was kept
    compute_split(options(out_dir=Path("undisturbed")), "train")
    assert contents(Path("fbank")) == contents(Path("undisturbed"))


def test_full_disk_is_one_message_and_leaves_nothing_half_written(make_corpus, small_parts):
    make_corpus(TEXTS)
    ended = run(DISK_FULL)
    assert ended.returncode == 1
    assert "error: cannot write fbank/noise_feats_train/part-00000.lca: File too large" in (
        ended.stderr
    )
    assert "Traceback" not in ended.stderr
    assert [path.name for path in Path("fbank").rglob("*") if path.is_file()] == ["options.json"]
    compute_split(options(), "train")
    assert len(cuts()) == len(TEXTS)


def test_finished_is_skipped_and_changed_is_made_anew(make_corpus, monkeypatch, caplog):
    make_corpus(TEXTS[:2])
    compute_split(options(), "train")
    before = contents(Path("fbank"))
    with monkeypatch.context() as patch:
        patch.setattr(audio, "extract", lambda *_: pytest.fail("computed again"))
        compute_split(options(jobs=2), "train")
    assert contents(Path("fbank")) == before
    caplog.set_level("INFO")
    compute_split(options(speed_perturb=True), "train")
    assert "these changed: speeds" in caplog.text
    assert len(cuts()) == 6
    make_corpus(["OTHER", *TEXTS[1:2]])
    compute_split(options(speed_perturb=True), "train")
    assert "these changed: manifests" in caplog.text
    assert cuts()[0].supervisions[0].text == "OTHER"


def test_lost_archive_is_made_again(make_corpus, small_parts):
    make_corpus(TEXTS)
    compute_split(options(), "train")
    before = contents(Path("fbank"))
    Path("fbank/noise_feats_train/part-00001.lca").unlink()
    compute_split(options(), "train")
    assert contents(Path("fbank")) == before


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 9 // 10])


def not_a_number(path: Path) -> None:
    soundfile.write(path, np.full(24000, np.nan, np.float32), 16000, subtype="FLOAT")


BAD = {
    "flac cut short": (
        ".flac",
        cut_short,
        r"ends before .*FLAC whose last samples.*\. Copy or download the file again",
    ),
    "wav cut short": (".wav", cut_short, r"21\d\d\d samples, not 24000"),
    "wav a millisecond short": (
        ".wav",
        lambda path: path.write_bytes(path.read_bytes()[:-32]),
        "23984 samples, not 24000",
    ),
    "cut off": (
        ".mp3",
        lambda path: path.write_bytes(path.read_bytes()[:3000]),
        r"ends before .*3000 of \d{4} bytes",
    ),
    "missing": (".wav", Path.unlink, "no such file.*Put it there"),
    "empty": (".flac", lambda path: path.write_bytes(b""), "holds nothing .*0 bytes"),
    "text": (".wav", lambda path: path.write_text("not found"), "is no audio .*is text"),
    "rate": (
        ".wav",
        lambda path: soundfile.write(path, np.zeros(24000), 8000),
        "8000 Hz, not 16.*If the file was changed, run stage 1",
    ),
    "nan": (".wav", not_a_number, "no finite numbers\\. Write the file anew"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_audio_names_cut_and_file_and_can_be_left_out(make_corpus, small_parts, kind):
    suffix, spoil, reason = BAD[kind]
    make_corpus(TEXTS, suffix=suffix)
    compute_split(options(out_dir=Path("whole")), "train")
    path = Path("audio/train-05").with_suffix(suffix)
    sound = path.read_bytes()
    spoil(path)
    with pytest.raises(UserError, match=rf"cut train-05: {path}: .*{reason}.*--bad-audio skip"):
        compute_split(options(), "train")
    assert not Path("fbank/noise_cuts_train.jsonl.gz").exists()
    compute_split(options(skip_bad_audio=True), "train")
    assert "train-05" not in [cut.id for cut in cuts()]
    assert len(cuts()) == len(TEXTS) - 1
    header, row = Path("fbank/noise_unreadable_train.tsv").read_text().splitlines()
    assert header.split("\t") == ["cut", "file", "reason"]
    assert row.split("\t")[:2] == ["train-05", str(path)]
    compute_split(options(skip_bad_audio=True), "train")  # finished
    assert Path("fbank/noise_unreadable_train.tsv").exists()
    path.write_bytes(sound)  # fetched again
    compute_split(options(), "train")
    assert contents(Path("fbank")) == contents(Path("whole"))


def test_utterances_without_audio_are_bad_audio(make_corpus, manifests):
    make_corpus(["A"], seconds=(1.0,))
    (recording,) = (
        json.loads(line) for line in read_lines("manifests/noise_recordings_train.jsonl.gz", "")
    )
    recording = Recording.from_dict(recording)
    for name, start, duration, reason in (
        ("beyond", 2.0, 1.0, "no part of the recording"),
        ("short", 0.2, 0.02, "less than a window"),
    ):
        segment = SupervisionSegment(name, recording.id, start, duration, text="A")
        manifests([recording], [segment], name)
        with pytest.raises(UserError, match=f"cut {name}: .*{reason}"):
            compute_split(options(), name)
        with pytest.raises(UserError, match=f"{name}: no audio can be read"):
            compute_split(options(skip_bad_audio=True), name)
        assert not Path(f"fbank/noise_cuts_{name}.jsonl.gz").exists()


def test_wrong_manifests_are_named(make_corpus, manifests):
    folder = make_corpus(TEXTS[:2])
    with pytest.raises(UserError, match=r"noise_recordings_dev.jsonl.gz does not exist; stage 1"):
        compute_split(options(), "dev")
    supervisions = folder / "noise_supervisions_train.jsonl.gz"
    whole = supervisions.read_bytes()
    supervisions.write_bytes(whole[:-20])
    with pytest.raises(UserError, match="noise_supervisions_train.jsonl.gz is damaged"):
        compute_split(options(), "train")
    stranger = SupervisionSegment("a", "unknown", 0.0, 1.0, text="A")
    manifests([Recording.from_file("audio/train-00.flac")], [stranger], "train")
    with pytest.raises(UserError, match="line 1: the recording of a is not in"):
        compute_split(options(), "train")
    manifests([Recording.from_file("audio/train-00.flac")], [], "train")
    with pytest.raises(UserError, match="noise_supervisions_train.jsonl.gz is empty"):
        compute_split(options(), "train")
