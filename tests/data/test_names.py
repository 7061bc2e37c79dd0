"""Names in another Unicode form: the message says which file is there."""

import unicodedata
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.data.fbank import FbankOptions, compute_split
from asrprune.data.manifests import read_lines, write_lines
from asrprune.data.names import explain_missing, file_in_other_form
from tests.data.conftest import write_audio


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize(
    "there, asked",
    [
        (nfd("grüße.wav"), nfc("grüße.wav")),
        (nfc("grüße.wav"), nfd("grüße.wav")),
        (nfd("é/") + nfc("ü.wav"), nfc("é/") + nfd("ü.wav")),
        (nfd("ü") + nfc("ü.wav"), nfc("üü.wav")),  # both forms in one name
        (nfd("한국어.wav"), nfc("한국어.wav")),
    ],
)
def test_the_file_that_is_there_is_found(there, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(there).parent.mkdir(exist_ok=True)
    Path(there).touch()
    assert file_in_other_form(asked) == there
    assert file_in_other_form(tmp_path / asked) == str(tmp_path / there)
    assert file_in_other_form(there) == ""
    message = explain_missing(asked)
    assert message.startswith(f"{asked} (there is {there!a}, the same letters in the Unicode form")


def test_other_letters_are_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("gruße.wav").touch()
    for name in ("grüße.wav", "none/grüße.wav", "plain.wav"):
        assert file_in_other_form(name) == "" and explain_missing(name) == name


def test_a_table_names_the_file_that_is_there(importer):
    write_audio("corpus/" + nfd("grüße.wav"), 1.0)
    Path("corpus/train.tsv").write_text(f"path\ttext\n{nfc('grüße.wav')}\tone\n")
    message = (
        r"line 2: the file does not exist \(corpus/grüße.wav \(there is 'corpus/gru\\u0308\\xdf"
    )
    with pytest.raises(UserError, match=message) as caught:
        importer("tables", "corpus/train.tsv")
    assert "the Unicode form NFD" in str(caught.value) and "etch" not in str(caught.value)


def test_kaldi_and_the_name_of_a_table(importer):
    write_audio("corpus/wav/" + nfd("é.wav"), 1.0)
    folder = Path("corpus/train")
    folder.mkdir()
    (folder / "wav.scp").write_text(f"a wav/{nfc('é.wav')}\n")
    (folder / "text").write_text("a one\n")
    with pytest.raises(UserError, match=r"text, line 1: .*there is '.*corpus/wav/e\\u0301.wav'"):
        importer("kaldi", folder)
    Path(nfd("ü.tsv")).touch()
    with pytest.raises(UserError, match=r"there is 'u\\u0308.tsv', .* does not exist"):
        importer("tables", nfc("ü.tsv"))


def test_stage_2_names_the_file_that_is_there(make_corpus):
    folder = make_corpus(["ONE"])
    path = folder / "noise_recordings_train.jsonl.gz"
    lines = b"".join(read_lines(path, "")).decode()
    with write_lines(path) as file:
        file.write(lines.replace("train-00.flac", nfc("é.flac")).encode())
    Path("audio/train-00.flac").rename("audio/" + nfd("é.flac"))
    message = r"in another form: 'audio/e\\u0301.flac'. Rename the file, or write"
    with pytest.raises(UserError, match=message):
        compute_split(FbankOptions("noise", folder, Path("fbank")), "train")
