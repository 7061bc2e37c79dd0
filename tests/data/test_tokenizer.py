"""Tokenizers: texts come back, training is repeatable, and wrong sizes or files are explained."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.data import tokenizer
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.tokenizer import load_tokenizer, normalise, train_bpe, train_characters

ALPHABET = "ABCDEÉ'ßж字"
WORDS = ["".join(random.Random(seed).choices(ALPHABET, k=1 + seed % 7)) for seed in range(200)]
TEXTS = [" ".join(WORDS[start : start + 5]) for start in range(0, 200, 5)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lang")
    train_bpe(TEXTS, 60, root / "bpe")
    train_characters(TEXTS, root / "char")
    return {"bpe": root / "bpe", "char": root / "char"}


KINDS = pytest.mark.parametrize("kind", ["bpe", "char"])


@KINDS
@settings(max_examples=100, deadline=None)
@given(text=st.text(ALPHABET + " \t\n▁"))
def test_known_characters_come_back(folders, kind, text):
    found = load_tokenizer(folders[kind])
    ids = found.encode(text)
    assert found.decode(ids) == normalise(text)
    assert all(found.unk_id < index < found.vocab_size for index in ids)


@KINDS
@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_any_text_encodes_without_blank_and_unknown_words_only_change(folders, kind, text):
    found = load_tokenizer(folders[kind])
    ids = found.encode(text)
    assert min(ids, default=2) >= 2
    pattern = f"[^{ALPHABET} ]+"
    marked = re.sub(r"(<unk>)+", "?", found.decode(ids))
    assert marked == re.sub(pattern, "?", normalise(text))


@KINDS
def test_special_symbols_in_a_text_are_text(folders, kind):
    found = load_tokenizer(folders[kind])
    assert not {0, 1} & set(found.encode("A <blk> <sos/eos> B"))
    assert found.symbols[:3] == ["<blk>", "<sos/eos>", "<unk>"]
    assert found.decode([0, *found.encode("AB"), 1, 0]) == "AB"


@KINDS
def test_symbols_are_those_of_tokens_txt(folders, kind):
    found = load_tokenizer(folders[kind])
    lines = (folders[kind] / "tokens.txt").read_text(encoding="utf-8").split("\n")
    assert lines == [*(f"{symbol} {i}" for i, symbol in enumerate(found.symbols)), ""]
    assert found.vocab_size == len(found.symbols) == {"bpe": 60, "char": 14}[kind]
    assert "▁" in found.symbols


def test_training_is_repeatable_and_digests_tell_tokenizers_apart(folders, tmp_path):
    train_bpe(TEXTS[::-1], 60, tmp_path / "bpe")
    train_characters(TEXTS[::-1], tmp_path / "char")
    for kind, folder in folders.items():
        for path in folder.iterdir():
            assert (tmp_path / kind / path.name).read_bytes() == path.read_bytes()
    train_bpe(TEXTS, 50, tmp_path / "smaller")
    digests = [load_tokenizer(path).digest for path in (*folders.values(), tmp_path / "smaller")]
    assert len(set(digests)) == 3


def test_wrong_vocabulary_sizes_name_the_right_ones(tmp_path):
    with pytest.raises(UserError, match=r"10000 is more .* largest possible is (\d+)") as caught:
        train_bpe(TEXTS, 10000, tmp_path)
    largest = int(re.search(r"possible is (\d+)", str(caught.value))[1])
    train_bpe(TEXTS, largest, tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == largest
    with pytest.raises(UserError, match="--vocab-size"):
        train_bpe(TEXTS, largest + 1, tmp_path)
    with pytest.raises(UserError, match=r"5 is too small: .* alone need 14 symbols"):
        train_bpe(TEXTS, 5, tmp_path)
    train_bpe(TEXTS, 14, tmp_path)


def run_verb(*words: str) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    tokenizer.add_arguments(parser)
    tokenizer.main(parser.parse_args(words))


def test_the_verb_counts_copies_once_and_replaces_another_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entries = [
        {"id": f"u{index}{suffix}", "supervisions": [{"text": text}]}
        for suffix in ("", "_sp0.9", "_sp1.1")
        for index, text in enumerate(TEXTS)
    ]
    entries.append({"id": "decomposed", "supervisions": [{"text": "E\u0301"}]})
    with write_lines("cuts.jsonl.gz") as file:
        file.writelines(map(to_line, entries))
    train_bpe([*TEXTS, "É"], 40, tmp_path / "expected")
    run_verb("--manifest", "cuts.jsonl.gz", "--vocab-size", "40", "--out-dir", "lang")
    assert Path("lang/bpe.model").read_bytes() == Path("expected/bpe.model").read_bytes()
    run_verb("--manifest", "cuts.jsonl.gz", "--type", "char", "--out-dir", "lang")
    assert load_tokenizer("lang").vocab_size == 14
    with pytest.raises(UserError, match=r"none.jsonl.gz does not exist; stage 3 \(validate\)"):
        run_verb("--manifest", "none.jsonl.gz", "--out-dir", "lang")
    with write_lines("silent.jsonl.gz") as file:
        file.write(to_line({"id": "a", "supervisions": [{"text": " "}]}))
    with pytest.raises(UserError, match="holds no text"):
        run_verb("--manifest", "silent.jsonl.gz", "--out-dir", "lang")


def test_the_verb_takes_a_model_that_is_there(folders, tmp_path, monkeypatch, caplog):
    import io

    import sentencepiece

    monkeypatch.chdir(tmp_path)
    with write_lines("cuts.jsonl.gz") as file:
        file.write(to_line({"id": "a", "supervisions": [{"text": "ABÆØ"}]}))
    words = ("--manifest", "cuts.jsonl.gz", "--out-dir", "lang", "--bpe-model")
    given_model = folders["bpe"] / "bpe.model"
    with pytest.raises(
        UserError, match=r"lang cannot spell the texts: Æ Ø \(2 of 4 .*-unknown 0.5"
    ):
        run_verb(*words, str(given_model))
    assert not Path("lang/tokens.txt").exists()
    run_verb(*words, str(given_model), "--max-unknown", "0.5")
    assert Path("lang/bpe.model").read_bytes() == given_model.read_bytes()
    assert load_tokenizer("lang").digest == load_tokenizer(folders["bpe"]).digest
    assert "lang cannot spell the texts: Æ Ø" in caplog.text
    other = io.BytesIO()  # with sentencepiece's own special pieces
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=other, vocab_size=40, model_type="bpe",
        minloglevel=2,
    )  # fmt: skip
    Path("other.model").write_bytes(other.getvalue())
    Path("no.model").write_bytes(b"nothing of the kind")
    for name, message in (
        ("absent.model", "--bpe-model absent.model does not exist"),
        ("no.model", "no.model is no sentencepiece model"),
        ("other.model", "its first pieces are <unk> <s> </s>, where a transducer needs <blk>"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            run_verb(*words, name)
    with pytest.raises(UserError, match="--type asks for char"):
        run_verb(*words, str(given_model), "--type", "char")
    assert load_tokenizer("lang").digest == load_tokenizer(folders["bpe"]).digest


@KINDS
def test_an_extended_tokenizer_begins_with_the_symbols_of_the_other(
    folders, kind, tmp_path, monkeypatch
):
    """Known texts keep their ids, and each new character is a symbol of its own."""
    monkeypatch.chdir(tmp_path)
    with write_lines("cuts.jsonl.gz") as file:
        file.write(to_line({"id": "a", "supervisions": [{"text": "AB ÆØ E𠮷Æ ß"}]}))
    words = ("--manifest", "cuts.jsonl.gz", "--extend", str(folders[kind]), "--type")
    run_verb(*words, kind, "--out-dir", "more")
    one, other = load_tokenizer(folders[kind]), load_tokenizer("more")
    assert other.symbols == [*one.symbols, "Æ", "Ø", "𠮷"]
    for text in TEXTS:
        assert other.encode(text) == one.encode(text)
    for text in ("AB ÆØ E𠮷Æ ß", "ÆÆAÆ", "𠮷"):
        assert other.decode(other.encode(text)) == text
        assert one.unk_id in one.encode(text) and one.unk_id not in other.encode(text)
    run_verb("--manifest", "cuts.jsonl.gz", "--extend", "more", "--type", kind, "--out-dir", "same")
    assert load_tokenizer("same").symbols == other.symbols
    strange = {"bpe": "char", "char": "bpe"}[kind]
    with pytest.raises(UserError, match=f"is of --type {kind}, and --type asks for {strange}"):
        run_verb(*words, strange, "--out-dir", "a")
    with pytest.raises(UserError, match="--extend more and --out-dir are the same folder"):
        run_verb("--manifest", "cuts.jsonl.gz", "--extend", "more", "--out-dir", "more")
    with pytest.raises(UserError, match="--bpe-model and --extend both name"):
        run_verb(*words, "bpe", "--out-dir", "a", "--bpe-model", "b.model")


def test_missing_damaged_and_mismatched_files_are_explained(folders, tmp_path):
    with pytest.raises(UserError, match=r"tokens.txt does not exist; stage 4 \(tokenizer\)"):
        load_tokenizer(tmp_path)
    tokens, model = tmp_path / "tokens.txt", tmp_path / "bpe.model"
    tokens.write_bytes((folders["bpe"] / "tokens.txt").read_bytes())
    with pytest.raises(UserError, match=r"bpe.model does not exist .* word pieces"):
        load_tokenizer(tmp_path)
    model.write_bytes(b"not a model")
    with pytest.raises(UserError, match="no sentencepiece model"):
        load_tokenizer(tmp_path)
    train_bpe(TEXTS, 50, tmp_path / "other")
    model.write_bytes((tmp_path / "other" / "bpe.model").read_bytes())
    with pytest.raises(UserError, match="do not belong together"):
        load_tokenizer(tmp_path)
    tokens.write_text("<blk> 0\n<sos/eos> 1\n<unk> 3\n")
    with pytest.raises(UserError, match="line 3: expected 'symbol 2'"):
        load_tokenizer(tmp_path)
    tokens.write_text("<eps> 0\nA 1\nB 2\n")
    with pytest.raises(UserError, match="does not begin with <blk>"):
        load_tokenizer(tmp_path)
