"""Characters that nobody sees are named, counted and taken out, save where they mean something."""

import json
import logging
from pathlib import Path

import pytest

from asrprune.base.errors import UserError
from asrprune.data import tokenizer
from asrprune.data.checks import Checked, Limits, check_manifest
from asrprune.data.invisible import CHOICES, Tally, is_empty, name_of, strip
from asrprune.data.manifests import write_lines
from asrprune.data.tokenizer import load_tokenizer
from tests.conftest import call_verb
from tests.data.conftest import write_audio

USELESS = (
    "\u200b\ufeff\u00ad\u200e\u200f\u2060\u202a\u202e\u2066\u2069\u061c\u2062\u3164"
    "\x01\x00\x7f\x80\x9f"
)
BREAKS = "\u2028\u2029\x85\x0b\x0c\x1c\x1f"
SPACES = "\u00a0\u3000\u2009\u202f\u205f\u1680"
PERSIAN = "می\u200cخواهم"
HINDI = "क्\u200dष"


def objects(**texts: str) -> str:
    """A table of one file with these texts, by their ids."""
    write_audio("a.wav", 1)
    lines = [
        json.dumps({"id": name, "path": "a.wav", "text": text}) for name, text in texts.items()
    ]
    Path("train.jsonl").write_text("\n".join(lines) + "\n")
    return "train.jsonl"


@pytest.mark.parametrize("character", USELESS)
def test_what_has_no_meaning_is_taken_out(character, importer, caplog):
    found = importer("tables", objects(a=f"one{character} t{character}wo", b="three"))
    assert found["a"]["text"] == "one two"
    assert (
        f"train: texts hold characters that nobody sees: {name_of(character)} in 1 text, such"
        in (caplog.text)
    )
    assert "such as a (train.jsonl, line 1) (taken out)" in caplog.text


@pytest.mark.parametrize("character", USELESS)
def test_it_stays_where_that_is_asked_for(character, importer, caplog):
    path = objects(a=f"one{character} two")
    found = importer("tables", path, "--invisible-characters", "keep")
    assert found["a"]["text"] == f"one{character} two"
    assert f"{name_of(character)} in 1 text, such as a (train.jsonl, line 1) (kept)" in caplog.text


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("text", [PERSIAN, HINDI, "葛\U000e0100", "ᠠ\u180b"])
def test_what_changes_a_reading_goes_on_demand_alone(text, choice, importer, caplog):
    found = importer("tables", objects(a=text), "--invisible-characters", choice)["a"]["text"]
    assert found == (text if choice != "strip-all" else strip(text, "strip-all"))
    assert (len(found) < len(text)) == (choice == "strip-all")
    assert ("(kept)" in caplog.text) == (choice != "strip-all")


@pytest.mark.parametrize("character", "\u200c\u200d")
@pytest.mark.parametrize("before", ["e", "é", "я", "λ", " ", ""])
def test_a_joiner_behind_a_letter_that_does_not_join_goes(character, before, importer):
    found = importer("tables", objects(a=f"{before}{character}b c"))["a"]["text"]
    assert found == f"{before}b c".strip()


@pytest.mark.parametrize("character", BREAKS)
def test_what_ends_lines_becomes_a_space_and_is_said(character, importer, caplog):
    for choice in CHOICES:
        path = objects(a=f"one{character}two")
        assert importer("tables", path, "--invisible-characters", choice)["a"]["text"] == "one two"
        assert f"{name_of(character)} in 1 text, such as a (train.jsonl, line 1) (now a space)" in (
            caplog.text
        )
        caplog.clear()


@pytest.mark.parametrize("character", SPACES)
def test_spaces_of_all_widths_are_spaces(character, importer, caplog):
    assert importer("tables", objects(a=f"one{character}two"))["a"]["text"] == "one two"
    assert "nobody sees" not in caplog.text


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize(
    "text", ["\u200b", "\ufeff \u00a0", "\u200c", "\u200d\u2028", "\x01\u00ad"]
)
def test_a_text_of_nothing_else_is_empty(text, choice, importer):
    path = objects(a=text, b="two")
    words = ("--invisible-characters", choice)
    assert list(importer("tables", path, *words)) == ["b"]
    row = Path("out/c_left_out_train.tsv").read_text(encoding="utf-8").split("\n")[1]
    assert row.split("\t")[2] == "empty-text" and "nothing but U+" in row.split("\t")[3]
    with pytest.raises(UserError, match="a has no text"):
        importer("tables", path, *words, "--empty-text", "error")


def test_other_ways_in_do_the_same(importer, caplog):
    write_audio("wav/a.wav", 1)
    Path("data").mkdir()
    Path("data/wav.scp").write_text("a wav/a.wav\n")
    Path("data/text").write_text("a one\u200b two\u2028three\n", encoding="utf-8")
    assert importer("kaldi", "data")["a"]["text"] == "one two three"
    assert "U+200B ZERO WIDTH SPACE" in caplog.text and "U+2028 LINE SEPARATOR" in caplog.text


@pytest.mark.parametrize("words", [("--type", "char"), ("--type", "bpe", "--vocab-size", "20")])
def test_no_tokenizer_gets_one_in_silence(words, tmp_path, monkeypatch, caplog):
    """Also where stage 1 is somebody else's, such as that of lhotse."""
    monkeypatch.chdir(tmp_path)
    texts = {"a": "ab\u200c cd\u00ad", "b": "abc d\u00ad", "c": "dab cab", "d": "\u200b"}
    with write_lines("cuts.jsonl.gz") as file:
        for name, text in texts.items():
            cut = {"id": name, "supervisions": [{"text": text}]}
            file.write(json.dumps(cut).encode() + b"\n")
    call_verb(tokenizer, "--manifest", "cuts.jsonl.gz", *words, "--out-dir", "lang")
    [warning] = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "U+00AD SOFT HYPHEN in 2 texts, such as a" in warning
    assert "U+200C ZERO WIDTH NON-JOINER in 1 text, such as a" in warning
    assert "\u200b" not in load_tokenizer("lang").symbols  # a text of nothing else is none


def test_the_validation_takes_it_for_empty():
    cut = {"supervisions": [{"text": "\u200b\u200e", "start": 0, "duration": 1}], "duration": 1}
    assert check_manifest(Checked("test", b"", "a"), cut, Limits()).reason == "empty-text"


def test_tallies_of_parts_are_joined():
    whole, parts = Tally(), [Tally(), Tally()]
    for index, text in enumerate(["a\u200b", "b", "\u200b\u00ad", "c\u00ad\u00ad"]):
        whole.add(text, str(index))
        parts[index // 2].add(text, str(index))
    parts[0].merge(parts[1])
    assert parts[0] == whole
    assert whole.described() == (
        "U+00AD SOFT HYPHEN in 2 texts, such as 2; U+200B ZERO WIDTH SPACE in 2 texts, such as 0"
    )


def test_what_can_be_seen_stays():
    visible = "aé漢한ه\u0301ा؀۝ “”–…€%\u2800"  # marks, signs of numbers, Braille
    assert all(strip(visible, choice) == visible for choice in CHOICES)
    assert not any(is_empty(character) for character in visible if character != " ")
    assert name_of("\x85") == "U+0085 NEXT LINE" and name_of("\x80") == "U+0080 CONTROL CHARACTER"
