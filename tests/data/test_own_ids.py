"""Equal ids of different audio: cuts get ids of their own, manifests are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, Recording, RecordingSet, SupervisionSegment

from asrprune.base.errors import UserError
from asrprune.data import validate
from asrprune.data.fbank import FbankOptions, compute_split, read_utterances
from asrprune.data.importers import verb
from asrprune.data.manifests import read_lines, to_line, write_lines
from asrprune.data.sources import OwnIds, read_recordings
from tests.conftest import call_verb
from tests.data.conftest import RATE

MADE_BY = "lhotse prepare"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tone(path: str, seconds: float, level: float = 0.1) -> Path:
    """Write a file whose samples all have one value, so that each file can be told by it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), level), RATE)
    return Path(path)


def cut_of(path: Path, ident: str, start: float = 0.0, duration: float | None = None) -> MonoCut:
    """Return a cut whose recording has the file's stem for its id, as lhotse makes it."""
    recording = Recording.from_file(path)
    duration = duration or recording.duration - start
    segment = SupervisionSegment(ident, recording.id, 0, duration, text=f"said in {path}")
    return MonoCut(ident, start, duration, 0, [segment], recording=recording)


def prepare(**splits: list[MonoCut]) -> None:
    """Run stages 1 and 2 on cuts."""
    words = []
    for split, cuts in splits.items():
        with write_lines(f"{split}.jsonl.gz") as file:
            file.writelines(to_line(cut.to_dict()) for cut in cuts)
        words.append(f"{split}={split}.jsonl.gz")
    options = ("--corpus", "c", "--out-dir", "out", "--jobs", "1")
    call_verb(verb, "--from", "cuts", *words, *options)
    for split in splits:
        compute_split(FbankOptions("c", Path("out"), Path("fbank")), split)


def made(split: str) -> dict[str, MonoCut]:
    """Return the cuts that stage 2 made, by id."""
    return {cut.id: cut for cut in CutSet.from_file(f"fbank/c_cuts_{split}.jsonl.gz")}


def right(split: str) -> bool:
    """Whether each cut has the audio of the file that its text names."""
    return all(
        cut.recording.sources[0].source == cut.supervisions[0].text.removeprefix("said in ")
        and cut.duration == pytest.approx(cut.features.num_frames / 100, abs=0.006)
        for cut in made(split).values()
    )


def test_files_of_one_name_in_several_folders_keep_their_audio(caplog):
    caplog.set_level("INFO")
    files = {
        split: [
            tone(f"{split}/spk{n % 2}/{n // 2:04d}.wav", 0.5 + 0.1 * n + shift, 0.01 * (n + 1))
            for n in range(4)
        ]
        for split, shift in (("train", 0.0), ("test", 0.03))
    }
    prepare(
        **{
            s: [cut_of(path, f"{s}{n}") for n, path in enumerate(files[s])]
            for s in ("train", "test")
        }
    )
    for split in ("train", "test"):
        assert list(made(split)) == [f"{split}{n}" for n in range(4)]
        assert right(split)
    assert len({cut.recording.id for s in ("train", "test") for cut in made(s).values()}) == 8
    assert "train: 2 recordings had the id of another one with other audio" in caplog.text
    assert "'0000' of train/spk1/0000.wav is now '0000-2', and so on" in caplog.text


def test_cuts_that_are_called_like_their_recordings_get_ids_of_their_own(caplog):
    caplog.set_level("INFO")
    paths = [tone(f"spk{n}/a.wav", 0.5 + 0.1 * n) for n in range(3)]
    prepare(train=[cut_of(path, path.stem) for path in paths])
    assert list(made("train")) == ["a", "a-2", "a-3"] and right("train")
    assert "train: 2 utterances had the id of another one" in caplog.text


def test_an_own_id_is_not_that_of_a_later_cut():
    paths = [tone("1/a.wav", 0.5), tone("2/a.wav", 0.6), tone("3/a-2.wav", 0.7)]
    prepare(train=[cut_of(path, path.stem) for path in paths])
    assert list(made("train")) == ["a", "a-2", "a-2-2"] and right("train")
    assert len({cut.recording.id for cut in made("train").values()}) == 3


def test_an_utterance_of_two_splits_has_one_id_in_both():
    """Though it is not the first one of that id: else the test set would be trained on."""
    paths = [tone(f"spk{n}/a.wav", 0.5 + 0.1 * n) for n in range(3)]
    copy = tone("copy/a.wav", 0.6)
    prepare(
        train=[cut_of(path, "a") for path in paths[:2]],
        test=[cut_of(copy, "a"), cut_of(paths[2], "a")],
    )
    assert list(made("train")) == ["a", "a-2"]
    assert list(made("test")) == ["a-2", "test-a"] and right("test")
    words = ("--manifest-dir", "fbank", "--out-dir", "valid", "--train", "train", "--eval", "test")
    call_verb(validate, "--corpus", "c", *words, "--jobs", "1")
    kept = [json.loads(line)["id"] for line in read_lines("valid/c_cuts_train.jsonl.gz", "")]
    assert kept == ["a"]


def test_parts_of_one_file_and_versions_of_it_are_told_apart():
    path = tone("long.wav", 2.0)
    parts = [cut_of(path, "a", start, 0.5) for start in (0.0, 0.5, 1.5)]
    changed = cut_of(path, "b")
    changed.recording = changed.recording.perturb_volume(2.0, affix_id=False)
    prepare(train=[*parts, cut_of(path, "b"), changed])
    assert [(cut.id, cut.start) for cut in made("train").values()] == [
        ("a", 0.0),
        ("a-2", 0.5),
        ("a-3", 1.5),
        ("b", 0.0),
        ("b-2", 0.0),
    ]
    levels = [cut.recording.load_audio()[0, 0] for cut in made("train").values()]
    assert levels == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.2], rel=1e-3)


def test_a_recording_that_says_another_rate_is_another_one():
    path = tone("a.wav", 1.0)
    slow = cut_of(path, "slow").resample(8000)
    prepare(train=[cut_of(path, "fast"), slow])
    recordings = RecordingSet.from_file("out/c_recordings_train.jsonl.gz")
    assert {r.id: r.sampling_rate for r in recordings} == {"a": 16000, "a-2": 8000}
    assert right("train")


def test_given_features_stay_with_their_cuts():
    paths = [tone(f"spk{n}/a.wav", 0.5 + 0.1 * n) for n in range(2)]
    prepare(train=[cut_of(path, f"cut{n}") for n, path in enumerate(paths)])
    given = list(made("train").values())
    for cut in given:
        cut.recording.id = cut.supervisions[0].recording_id = cut.features.recording_id = "a"
    with write_lines("given.jsonl.gz") as file:
        file.writelines(to_line(cut.to_dict()) for cut in given)
    options = ("--corpus", "c", "--out-dir", "out2", "--jobs", "1")
    call_verb(verb, "--from", "cuts", "train=given.jsonl.gz", *options)
    taken = list(CutSet.from_file("out2/c_cuts_train.jsonl.gz"))
    assert [cut.recording.id for cut in taken] == ["a", "a-2"]
    assert [cut.features.recording_id for cut in taken] == ["a", "a-2"]
    assert [cut.supervisions[0].recording_id for cut in taken] == ["a", "a-2"]
    assert [cut.num_frames for cut in taken] == [50, 60]


def test_features_alone_are_compared_by_what_is_in_them():
    paths = [tone(f"spk{n}/a.wav", 0.5) for n in range(2)]
    soundfile.write(paths[1], np.random.default_rng(0).normal(0, 0.1, 8000), RATE)
    prepare(train=[cut_of(path, f"cut{n}") for n, path in enumerate(paths)])
    compute_split(FbankOptions("c", Path("out"), Path("again")), "train")
    cuts = [*made("train").values()][:2]
    [copy, _] = CutSet.from_file("again/c_cuts_train.jsonl.gz")
    for cut in (*cuts, copy):
        cut.id, cut.recording = "a", None
    splits = {"one": cuts[:1], "copy": [copy], "two": cuts[1:]}
    for split, own in splits.items():
        with write_lines(f"{split}.jsonl.gz") as file:
            file.writelines(to_line(cut.to_dict()) for cut in own)
    options = ("--corpus", "c", "--out-dir", "out", "--jobs", "1")
    words = [f"{split}={split}.jsonl.gz" for split in splits]
    call_verb(verb, "--from", "cuts", *words, *options)
    ids = [CutSet.from_file(f"out/c_cuts_{split}.jsonl.gz")[0].id for split in splits]
    assert ids == ["a", "a", "two-a"]


# --- manifests ------------------------------------------------------------------------------------


def recording(path: str, ident: str = "rec", channels=(0,), **changes) -> dict:
    """Return a recording of a manifest."""
    count = soundfile.info(path).frames if Path(path).exists() else RATE
    return {
        "id": ident,
        "sources": [{"type": "file", "channels": list(channels), "source": path}],
        "sampling_rate": RATE,
        "num_samples": count,
        "duration": count / RATE,
        "channel_ids": list(channels),
        **changes,
    }


def manifests(recordings: list[dict], channels=(0,)) -> Path:
    """Write manifests of a part, with a supervision of "rec" for each channel."""
    with write_lines("made/x_recordings_train.jsonl.gz") as file:
        file.writelines(map(to_line, recordings))
    fields = {"recording_id": "rec", "start": 0.0, "duration": 0.5, "text": "word"}
    rows = [{"id": f"u{channel}", "channel": channel, **fields} for channel in channels]
    with write_lines("made/x_supervisions_train.jsonl.gz") as file:
        file.writelines(map(to_line, rows))
    return Path("made")


OTHERS = {
    "another file": {"path": "2/rec.wav"},
    "another rate": {"path": "1/rec.wav", "sampling_rate": 8000},
    "another length": {"path": "1/rec.wav", "num_samples": 7999},
    "another version": {
        "path": "1/rec.wav",
        "transforms": [{"name": "Volume", "kwargs": {"factor": 2.0}}],
    },
    "another order of channels": {"path": "1/rec.wav", "channels": (1, 0)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_manifests_with_one_id_of_two_sources_are_refused(other, importer):
    for number in (1, 2):
        tone(f"{number}/rec.wav", 0.5, 0.1 * number)
    entries = [recording("1/rec.wav", channels=(0, 1)), recording(**OTHERS[other])]
    message = (
        r"x_recordings_train.jsonl.gz, line 2: two recordings have the id 'rec' and other audio: "
        rf"1/rec.wav \(16000 Hz, 8000 samples\) and {OTHERS[other]['path']} \("
    )
    with pytest.raises(UserError, match=message):
        importer("lhotse", manifests(entries))
    with pytest.raises(UserError, match=message):
        read_utterances(manifests(entries), "x", "train")


def test_one_source_that_is_listed_twice_is_one(importer):
    tone("1/rec.wav", 0.5)
    tone("copy/rec.wav", 0.5)
    Path("link").symlink_to("1")
    for path in ("1/rec.wav", "./1/rec.wav", "link/rec.wav", "copy/rec.wav"):
        entries = [recording("1/rec.wav"), recording(path)]
        assert list(importer("lhotse", manifests(entries))) == ["u0"]
        assert len(read_utterances(Path("made"), "x", "train")) == 1


def test_channels_of_one_file_are_one_recording(importer):
    Path("1").mkdir()
    soundfile.write("1/rec.wav", np.full((8000, 2), (0.1, 0.2)), RATE)
    entries = [recording("1/rec.wav", channels=(k,)) for k in (0, 1)]
    found = importer("lhotse", manifests(entries, channels=(0, 1)))
    assert {key: s["channel"] for key, s in found.items()} == {"u0": 0, "u1": 1}
    compute_split(FbankOptions("c", Path("out"), Path("fbank")), "train")
    samples = [cut.load_audio()[0, 0] for cut in made("train").values()]
    assert samples == pytest.approx([0.1, 0.2], rel=1e-3)


def test_channels_of_several_files_are_one_recording_unless_they_are_the_same_channel():
    for number in (1, 2):
        tone(f"{number}/rec.wav", 0.5, 0.1 * number)
    manifests([recording("1/rec.wav", channels=(0,)), recording("2/rec.wav", channels=(1,))])
    [line] = read_recordings(Path("made/x_recordings_train.jsonl.gz"), MADE_BY).values()
    joined = Recording.from_dict(json.loads(line))
    assert joined.load_audio()[:, 0] == pytest.approx([0.1, 0.2], rel=1e-3)


def test_ids_as_numbers_are_compared_as_strings():
    for number in (1, 2):
        tone(f"{number}/rec.wav", 0.5, 0.1 * number)
    manifests([recording("1/rec.wav", ident=7), recording("2/rec.wav", ident="7")])
    with pytest.raises(UserError, match="line 2: two recordings have the id '7'"):
        read_recordings(Path("made/x_recordings_train.jsonl.gz"), MADE_BY)


def table(split: str, *rows: str) -> str:
    Path(f"{split}.tsv").write_text("\n".join(["id\tpath\ttext\tstart\tduration", *rows]) + "\n")
    return f"{split}={split}.tsv"


def test_an_id_of_two_parts_of_a_file_is_one_message_across_splits():
    """Stage 3 would hold a training utterance out as one of the test set."""
    tone("long.wav", 2.0)
    words = table("train", "a\tlong.wav\tx\t0\t1"), table("test", "a\tlong.wav\ty\t1\t1")
    options = ("--corpus", "c", "--out-dir", "out", "--jobs", "1")
    message = (
        "test.tsv, line 2: the id 'a' is that of another part of the file in train: here long.wav, "
        r"1.00 to 2.00 s, there long.wav, 0.00 to 1.00 s \(train.tsv, line 2\). Give every"
    )
    with pytest.raises(UserError, match=message):
        call_verb(verb, "--from", "tables", *words, *options)
    same = table("train", "a\tlong.wav\tx\t0\t1"), table("test", "a\tlong.wav\ty\t0.01\t1.01")
    call_verb(verb, "--from", "tables", *same, *options)


def test_an_id_that_a_table_gives_twice_names_both_files(importer):
    for number in (1, 2):
        tone(f"{number}/a.wav", 0.5, 0.1 * number)
    table("train", "a\t1/a.wav\tx\t\t", "a\t2/a.wav\ty\t\t")
    message = (
        "line 3: the id 'a' is that of train.tsv, line 2 too, with other audio: here 2/a.wav.*1/a"
    )
    with pytest.raises(UserError, match=message):
        importer("tables", "train.tsv")


def test_ids_made_of_paths_differ_where_files_do(importer):
    tone("a.wav", 0.5)
    tone("a.flac", 0.7)
    Path("train.tsv").write_text("path\ttext\na.wav\tone\na.flac\ttwo\n")
    found = importer("tables", "train.tsv")
    assert {key: (s["text"], s["duration"]) for key, s in found.items()} == {
        "a": ("one", 0.5),
        "a-2": ("two", 0.7),
    }


def test_own_ids_of_many_things_are_found_at_once():
    ids = OwnIds()
    things = [str(number).encode() for number in range(20000)]
    first = [ids.own("x", thing) for thing in things]
    assert first[:3] == ["x", "x-2", "x-3"] and len(set(first)) == len(things)
    assert [ids.own("x", thing) for thing in things] == first
