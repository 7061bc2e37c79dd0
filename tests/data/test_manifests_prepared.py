"""What lhotse prepares: its parts are found under whatever name, or listed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.data.importers import prepared
from asrprune.data.manifests import read_lines, to_line, write_lines
from tests.data.conftest import write_audio


@pytest.fixture
def made(make_corpus) -> Path:
    """The folder of a corpus "noise" with the parts train and dev."""
    make_corpus(["ONE", "", "THREE"], "train")
    return make_corpus(["FOUR"], "dev")


def rename(folder: Path, old: str, new: str) -> None:
    for kind in ("recordings", "supervisions"):
        target = folder / new.format(kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / old.format(kind), target)


def test_a_part_becomes_a_split_without_empty_texts(made, importer):
    found = importer("lhotse", made)
    assert {key: entry["text"] for key, entry in found.items()} == {
        "train-00": "ONE",
        "train-02": "THREE",
    }
    assert {entry["audio"]["id"] for entry in found.values()} == set(found)
    assert "train-01" in Path("out/c_left_out_train.tsv").read_text()


@pytest.mark.parametrize(
    "name, part",
    [
        ("some-thing_{}_train-clean.jsonl.gz", "train-clean"),
        ("two_words_{}_train_a.jsonl.gz", "train_a"),
        ("{}_valid.jsonl.gz", "valid"),
        ("all_{}.jsonl.gz", "all"),
        ("deep/er/x_{}_part.jsonl.gz", "part"),
        ("x_{}_y.jsonl.gz", "x_y"),  # in full
    ],
)
def test_names_that_lhotse_gives(name, part, made, importer):
    rename(made, "noise_{}_train.jsonl.gz", name)
    assert len(importer("lhotse", made, split=part)) == 2


def test_commands_are_refused_and_not_run(made, importer):
    path = made / "noise_recordings_train.jsonl.gz"
    lines = [json.loads(line) for line in read_lines(path, "")]
    lines[0]["sources"][0].update(type="command", source="touch ran")
    with write_lines(path) as file:
        file.writelines(map(to_line, lines))
    with pytest.raises(UserError, match="line 1: train-00: 'touch ran' is a command"):
        importer("lhotse", made)
    assert not Path("ran").exists()


def test_a_part_that_is_none_or_several(made, importer):
    with pytest.raises(
        UserError, match=r"'trian' is no part \(did you mean 'train'\?\).*there are: dev train. Say"
    ):
        importer("lhotse", made, split="trian")
    rename(made, "noise_{}_train.jsonl.gz", "fr_{}_train.jsonl.gz")
    with pytest.raises(UserError, match="'train' is several parts .*fr_train dev noise_train"):
        importer("lhotse", made)
    assert len(importer("lhotse", made, split="fr_train")) == 2


def test_a_folder_without_manifests(tmp_path, importer):
    with pytest.raises(UserError, match="holds no manifests of recordings.*there is: nothing"):
        importer("lhotse", tmp_path)
    (tmp_path / "x_cuts_train.jsonl.gz").touch()
    with pytest.raises(UserError, match="there is: x_cuts_train.jsonl.gz"):
        importer("lhotse", tmp_path)


def test_recordings_without_supervisions_are_no_part(made, tmp_path):
    shutil.copy(made / "noise_recordings_train.jsonl.gz", made / "noise_recordings_music.jsonl.gz")
    assert [part for _, part, _ in prepared.find_parts(made)] == ["dev", "train"]


def test_a_supervision_without_its_recording(made, importer):
    shutil.copy(made / "noise_recordings_dev.jsonl.gz", made / "noise_recordings_train.jsonl.gz")
    message = r"supervisions_train.jsonl.gz, line 1: the recording 'train-00' of train-00 is not in"
    with pytest.raises(UserError, match=message):
        importer("lhotse", made)


def test_what_lhotse_really_prepares(importer):
    for number in range(60):
        word = "_".join(f"{number:08b}")
        write_audio(f"yesno/{word}.wav", 0.6, 8000)
    lhotse = Path(sys.executable).parent / "lhotse"
    subprocess.run([lhotse, "prepare", "yesno", "yesno", "made"], check=True, capture_output=True)
    for split in ("train", "test"):
        found = importer("lhotse", "made", split=split)
        assert len(found) == 30
        for name, entry in found.items():
            assert entry["text"].split() == [("NO", "YES")[int(bit)] for bit in name.split("_")]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--audio-dir", "x"), "--audio-dir: what lhotse prepares says itself"),
        (("--ignore-features", "true"), "--ignore-features: only --from cuts"),
    ],
)
def test_options_that_say_nothing_are_refused(words, message, made, importer):
    with pytest.raises(UserError, match=message):
        importer("lhotse", made, *words)
