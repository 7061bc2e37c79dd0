"""Tokens against encoder frames, in scripts with and without spaces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.data.lengths import encoder_frames, exceeds, least_tokens
from asrprune.data.tokenizer import load_tokenizer, train_bpe, train_characters

TEXTS = {
    "": 0,
    "one two  three": 3,
    "un été à Noël": 4,
    "안녕 하세요": 2,  # Korean has spaces
    "привет мир": 2,
    "你好世界": 4,
    "你好 世界": 4,
    "こんにちは世界": 7,
    "ラーメン々〇": 6,
    "ｱｲｳ": 3,
    "สวัสดี": 6,
    "ສະບາຍດີ": 7,
    "សួស្តី": 6,
    "𠀀𠀁": 2,
    "我用 iPhone 打电话": 6,
    "我用iPhone打电话": 6,
}


@pytest.mark.parametrize("text", TEXTS)
def test_characters_count_where_words_have_no_spaces(text):
    assert least_tokens(text) == TEXTS[text]


def test_encoders_round_up():
    assert [encoder_frames(frames, 4) for frames in (0, 1, 4, 5)] == [0, 1, 1, 2]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lang")
    train_bpe(["ABC ABD 你好 世界"] * 9, 20, folder / "bpe")
    train_characters(["ABCD 你好世界"], folder / "char")
    return [load_tokenizer(folder / kind) for kind in ("bpe", "char")]


@settings(max_examples=200, deadline=None)
@given(text=st.text("ABCDxyz 你好", max_size=12), frames=st.integers(0, 14))
def test_the_rule_counts_tokens(tokenizers, text, frames):
    for tokenizer in tokenizers:
        assert exceeds(tokenizer, text, frames) == (len(tokenizer.encode(text)) > frames)
