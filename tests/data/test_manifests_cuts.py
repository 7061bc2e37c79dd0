"""Cuts of lhotse: features that fit are taken as they are, others are computed anew."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, Features, LilcomChunkyWriter

from asrprune.base.errors import UserError
from asrprune.data import validate
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.features import load_features
from asrprune.data.manifests import read_lines, to_line, write_lines
from tests.conftest import call_verb

TEXTS = ["ONE", "TWO THREE", "FOUR"]
CUTS = Path("fbank/noise_cuts_train.jsonl.gz")


@pytest.fixture
def cuts(make_corpus) -> Callable[..., Path]:
    """Cuts with features, and a function that changes the lines from some index on."""
    make_corpus(TEXTS)
    compute_split(FbankOptions("noise", Path("manifests"), Path("fbank")), "train")

    def change(edit: Callable[[dict], object] = lambda cut: None, first: int = 0) -> Path:
        entries = [json.loads(line) for line in read_lines(CUTS, "")]
        for entry in entries[first:]:
            edit(entry)
        with write_lines("changed.jsonl.gz") as file:
            file.writelines(map(to_line, entries))
        return Path("changed.jsonl.gz")

    return change


def taken() -> CutSet:
    """The cuts after stage 2."""
    compute_split(FbankOptions("c", Path("out"), Path("new")), "train")
    return CutSet.from_file("new/c_cuts_train.jsonl.gz")


def validated() -> None:
    """Stage 3."""
    words = ("--corpus", "c", "--manifest-dir", "new", "--out-dir", "valid", "--train", "train")
    call_verb(validate, *words, "--jobs", "1")


def without_features(cut: dict) -> None:
    del cut["features"]


def test_features_that_fit_are_taken_as_they_are(cuts, importer):
    found = importer("cuts", cuts())
    assert [entry["text"] for entry in found.values()] == TEXTS
    assert list(taken()) == list(CutSet.from_file(CUTS))
    assert [path.name for path in Path("new/c_feats_train").iterdir()] == []
    validated()
    assert Path("valid/c_cuts_train.jsonl.gz").exists()


@pytest.mark.parametrize("compressed", [True, False])
def test_cuts_with_recordings_alone_get_features(cuts, importer, compressed, caplog):
    path = cuts(without_features)
    if not compressed:
        path = Path("plain.jsonl")
        path.write_bytes(b"".join(read_lines("changed.jsonl.gz", "")))
    importer("cuts", path)
    assert not Path("out/c_cuts_train.jsonl.gz").exists()
    for new, old in zip(taken(), CutSet.from_file(CUTS), strict=True):
        assert (new.id, new.duration) == (old.id, old.duration)
        np.testing.assert_allclose(new.load_features(), old.load_features())


@pytest.mark.parametrize("ignore", ["true", "false"])
def test_numbers_as_ids_become_strings(ignore, cuts, importer):
    def numbered(cut):
        number = int(cut["id"][-2:])
        cut.update(id=number)
        cut["recording"].update(id=number)
        cut["supervisions"][0].update(id=number, recording_id=number)

    importer("cuts", cuts(numbered), "--ignore-features", ignore)
    found = list(taken())
    assert [cut.id for cut in found] == ["0", "1", "2"]
    assert [cut.supervisions[0].id for cut in found] == ["0", "1", "2"]
    assert [cut.recording.id for cut in found] == ["0", "1", "2"]
    validated()
    assert len(CutSet.from_file("valid/c_cuts_train.jsonl.gz")) == len(TEXTS)


def test_a_part_of_a_recording_stays_that_part(cuts, importer):
    def later(cut):
        without_features(cut)
        cut.update(start=0.25, duration=0.75)
        cut["supervisions"][0].update(start=0.0, duration=0.75)

    found = importer("cuts", cuts(later))
    assert {(s["start"], s["duration"]) for s in found.values()} == {(0.25, 0.75)}
    assert {(cut.start, cut.duration) for cut in taken()} == {(0.25, 0.75)}


UNFIT = {
    "has 40 mel bins, not 80": {"num_features": 40},
    "has 0.0125 s from frame to frame, not 0.01": {"frame_shift": 0.0125},
    "has 8000 Hz, not 16000": {"sampling_rate": 8000},
    "has features of the kind mfcc, not kaldi-fbank": {"type": "mfcc"},
}


@pytest.mark.parametrize("problem", UNFIT)
def test_features_that_do_not_fit_are_computed_anew(problem, cuts, importer, caplog):
    caplog.set_level("INFO")
    importer("cuts", cuts(lambda cut: cut["features"].update(UNFIT[problem]), first=1))
    assert f"in stage 2 from the recordings: train-01 {problem}" in caplog.text
    assert all(cut.num_features == 80 for cut in taken())


def shifted(seconds: float) -> Callable[[dict], None]:
    return lambda cut: cut["features"].update(start=cut["features"]["start"] + seconds)


@pytest.mark.parametrize("seconds", [0.004, 0.0009, -0.004, 0.012, -0.012, -0.02])
def test_features_that_begin_a_few_milliseconds_off_are_read(seconds, cuts, importer):
    """In all stages, and with all frames of the cut."""
    importer("cuts", cuts(shifted(seconds)))
    found = taken()
    validated()
    assert len(CutSet.from_file("valid/c_cuts_train.jsonl.gz")) == len(TEXTS)
    for cut in found:
        stored, frames = cut.features.load(), load_features(cut).numpy()
        assert len(frames) == cut.num_frames == len(stored)
        late = round(100 * seconds)  # frames
        np.testing.assert_array_equal(
            frames, stored[np.clip(np.arange(len(stored)) - late, 0, len(stored) - 1)]
        )


ELSEWHERE = {
    "late": (shifted(0.5), r"0.500 to 2.500 s \(50 frames missing at the start and 0 at the end"),
    "early": (shifted(-0.5), "0 frames missing at the start and 50 at the end, of 200"),
    "after": (shifted(7), "200 frames missing at the start"),
    "before": (shifted(-7), "200 at the end"),
    "two frames late": (shifted(0.02), "2 frames missing at the start"),
    "three frames early": (shifted(-0.03), "3 at the end"),
    "short": (lambda c: c["features"].update(num_frames=197), "have 197 frames for 2 s, not 200"),
    "long": (lambda c: c["features"].update(num_frames=500), "have 500 frames for 2 s, not 200"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
@pytest.mark.parametrize("split", ["train", "test"])
def test_features_of_another_part_are_refused_in_stage_1(case, split, cuts, importer):
    edit, message = ELSEWHERE[case]
    with pytest.raises(UserError, match=f"line 2: the features of train-01 do not.*{message}.*tru"):
        importer("cuts", cuts(edit, first=1), split=split)
    importer("cuts", cuts(edit, first=1), "--ignore-features", "true", split=split)
    bare = cuts(lambda cut: (edit(cut), cut.pop("recording")), first=1)
    with pytest.raises(UserError, match=f"{message}.*or give cuts with recordings$"):
        importer("cuts", bare, split=split)


def test_a_part_of_features_is_read_as_that_part(cuts, importer):
    """As those of a whole recording, of which the cut is a segment."""
    whole = {cut.id: cut.features.load() for cut in CutSet.from_file(CUTS)}

    def part(cut):
        cut.update(start=0.25, duration=0.75)
        cut["supervisions"][0].update(start=0.0, duration=0.75)

    importer("cuts", cuts(part))
    found = taken()
    validated()
    for cut in found:
        np.testing.assert_array_equal(load_features(cut), whole[cut.id][25:100])
    about = json.loads(Path("valid/c_statistics.json").read_text())
    read = np.concatenate([matrix[25:100] for matrix in whole.values()]).astype(np.float64)
    np.testing.assert_allclose(about["feature_mean"], read.mean(axis=0))


def test_features_two_frames_short_go_all_the_way(cuts, importer):
    """As Kaldi makes them (snip_edges=true): stages 1 and 3 agree, and training gets all frames."""

    def shorter(cut):
        features = Features.from_dict(cut["features"])
        assert features.num_frames == round(100 * cut["duration"])
        with LilcomChunkyWriter(f"kaldi/{cut['id']}.lca") as writer:
            key = writer.write(cut["id"], features.load()[:-2])
            cut["features"].update(num_frames=features.num_frames - 2, storage_key=key)
            cut["features"]["storage_path"] = writer.storage_path

    Path("kaldi").mkdir()
    importer("cuts", cuts(shorter))
    speech = next(iter(taken()))
    validated()
    valid = CutSet.from_file("valid/c_cuts_train.jsonl.gz")
    assert len(valid) == len(TEXTS)
    frames = load_features(speech)
    assert len(frames) == speech.num_frames == speech.features.num_frames + 2
    np.testing.assert_array_equal(frames[:-2], speech.features.load())
    assert (frames[-3:] == frames[-1]).all()
    noise = speech.truncate(duration=0.5)
    assert len(load_features(speech.mix(noise, snr=10))) == speech.num_frames


def test_what_came_with_the_cuts_is_never_to_be_deleted(cuts, importer):
    def damaged(cut):
        cut["features"]["storage_key"] = "5,10,10"

    importer("cuts", cuts(damaged))
    taken()
    with pytest.raises(UserError, match="unreadable-features: 3") as caught:
        validated()
    assert "--ignore-features true" in str(caught.value) and "elete" not in str(caught.value)
    Path("fbank/noise_feats_train").rename("moved")
    with pytest.raises(UserError, match="noise_feats_train.*, which does not exist") as caught:
        validated()
    assert "--ignore-features true" in str(caught.value) and "elete" not in str(caught.value)


def test_features_that_were_not_copied_are_missed_in_stage_1(cuts, importer):
    Path("fbank/noise_feats_train").rename("moved")
    message = r"line 1: train-00 has features that are not here: .*--ignore-features true$"
    with pytest.raises(UserError, match=message):
        importer("cuts", cuts())
    with pytest.raises(UserError, match="/gone/a.lca does not exist. Copy them there, or compute"):
        importer("cuts", cuts(lambda cut: cut["features"].update(storage_path="/gone/a.lca")))
    importer("cuts", cuts(), "--ignore-features", "true")
    assert len(taken()) == len(TEXTS)

    def bare(cut):
        cut.pop("recording")

    with pytest.raises(UserError, match="Copy them there$"):
        importer("cuts", cuts(bare))


def test_without_recordings_features_have_to_fit(cuts, importer):
    def bare(cut):
        cut.pop("recording")

    way_in_fits = cuts(bare)
    with pytest.raises(KeyError):  # the helper looks the recordings up
        importer("cuts", way_in_fits)
    assert all(cut.has_features and not cut.has_recording for cut in taken())

    def unfit(cut):
        bare(cut)
        cut["features"]["num_features"] = 40

    message = r"cannot be used \(train-00 has 40 mel bins, not 80\), and train-00 has no recording"
    with pytest.raises(UserError, match=message + ".*80 mel bins, 10 ms apart, of 16000 Hz"):
        importer("cuts", cuts(unfit))


def test_features_can_be_ignored_and_their_speed_cannot_be_changed(cuts, importer):
    importer("cuts", cuts())
    fast = FbankOptions("c", Path("out"), Path("new"), speed_perturb=True)
    with pytest.raises(UserError, match="whose speed cannot be changed.*--ignore-features true"):
        compute_split(fast, "train")
    importer("cuts", cuts(), "--ignore-features", "true")
    compute_split(fast, "train")
    assert len(CutSet.from_file("new/c_cuts_train.jsonl.gz")) == 3 * len(TEXTS)


def test_features_that_are_given_are_never_removed(cuts, importer):
    importer("cuts", cuts())
    Path("fbank/noise_feats_train").rename("moved")
    Path("new").mkdir()
    Path("new/c_feats_train").symlink_to("../moved")
    Path("fbank/noise_feats_train").symlink_to("../moved")
    with pytest.raises(UserError, match="are in new/c_feats_train, which .* another --data-dir"):
        taken()
    assert len(list(Path("moved").glob("*.lca"))) == 1


def test_what_another_way_in_left_is_not_taken(cuts, importer):
    importer("cuts", cuts())
    Path("table.tsv").write_text("path\ttext\naudio/train-00.flac\tOTHER\n")
    importer("tables", "table.tsv")
    assert [cut.supervisions[0].text for cut in taken()] == ["OTHER"]
    importer("cuts", cuts())
    assert len(taken()) == len(TEXTS)


def test_relative_paths_are_found_from_the_manifest_on(cuts, importer, tmp_path, monkeypatch):
    cuts()
    for name in ("elsewhere", "here"):
        Path(name).mkdir()
    for name in ("fbank", "audio"):
        Path(name).rename(f"elsewhere/{name}")
    monkeypatch.chdir("here")
    importer("cuts", Path("../elsewhere") / CUTS)
    for cut in taken():
        assert Path(cut.features.storage_path).exists()
        assert cut.load_audio().size and cut.load_features().size
    Path("../elsewhere/audio").rename("../audio-moved")
    with pytest.raises(UserError, match="names audio/train-00.flac, which is neither here"):
        importer("cuts", Path("../elsewhere") / CUTS)


def test_texts_are_cleaned_and_empty_ones_left_out(cuts, importer):
    path = cuts(lambda cut: cut["supervisions"][0].update(text=" e\u0301  B "), first=1)
    assert [s["text"] for s in importer("cuts", path).values()] == ["ONE", "é B", "é B"]
    assert [cut.supervisions[0].text for cut in taken()] == ["ONE", "é B", "é B"]
    path = cuts(lambda cut: cut["supervisions"][0].pop("text"), first=1)
    assert list(importer("cuts", path)) == ["train-00"]
    assert len(taken()) == 1


ONE_FILE = {
    "sources": [{"type": "file", "channels": [0], "source": "audio/train-00.flac"}],
    "num_samples": 32000,
}
MISTAKES = {
    "supervisions": (
        lambda cut: cut.update(supervisions=[]),
        "line 1: the cut train-00 has 0 supervisions.*trim-to-supervisions",
    ),
    "mixed": (lambda cut: cut.update(type="MixedCut"), "line 1: train-00 is a MixedCut, and"),
    "a recording": (lambda cut: (cut.pop("type"), cut.pop("supervisions")), "train-00 is a no cut"),
    "nothing": (
        lambda cut: (cut.pop("recording"), cut.pop("features")),
        "line 1: the cut train-00 has neither a recording nor features",
    ),
    "start": (lambda cut: cut.pop("start"), "line 1: the cut train-00 has no start"),
    "duration": (
        lambda cut: cut["supervisions"][0].pop("duration"),
        "line 1: the supervision of train-00 has no duration",
    ),
    "twice": (
        lambda cut: cut.update(id="x", recording={**cut["recording"], **ONE_FILE}),
        "line 2: the id 'x' is that of .*line 1 too, and so is the audio .*Remove one of the two",
    ),
    "list as id": (lambda cut: cut.update(id=["x"]), r"line 1: \['x'\] is no id; ids are strings"),
    "no id": (lambda cut: cut.pop("id"), "line 1: no manifest entry"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(mistake, cuts, importer):
    edit, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        importer("cuts", cuts(edit))


@pytest.mark.parametrize("ignore", ["true", "false"])
def test_commands_are_refused_and_not_run(ignore, cuts, importer):
    source = {"type": "command", "channels": [0], "source": "touch ran; cat audio/train-01.flac"}
    path = cuts(lambda cut: cut["recording"].update(sources=[source]), first=1)
    message = "line 2: train-01: 'touch ran; .* is a command, and commands in files are not run"
    with pytest.raises(UserError, match=message):
        importer("cuts", path, "--ignore-features", ignore)
    assert not Path("ran").exists() and not list(Path("out").iterdir())


def test_files_that_are_missing_or_damaged(cuts, importer):
    with pytest.raises(UserError, match="none.jsonl.gz does not exist"):
        importer("cuts", "none.jsonl.gz")
    path = cuts()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="changed.jsonl.gz is damaged"):
        importer("cuts", path)


def test_a_long_cut_says_how_to_make_it_short(cuts, importer):
    with pytest.raises(UserError, match="train-01 is one utterance of 2 s.*trim-to-supervisions"):
        importer("cuts", cuts(), "--longest", "1.8")
