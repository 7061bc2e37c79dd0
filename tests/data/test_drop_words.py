"""Words that are left out of texts, and no others."""

import pytest

from asrprune.data.drop_words import WordDropper

CASES = {
    "<unk> hello <unk>": "hello",
    "hello<unk>there": "hello there",
    "<UNK> hello": "<UNK> hello",
    "[noise]hello": "hello",
    "uh hello": "hello",
    "uh-oh huh uh's": "uh-oh huh uh's",
    "we are #0 of #01": "we are of #01",
    "你好<unk>世界": "你好 世界",
    "caf\u0065\u0301": "",
    "  as   it is ": "  as   it is ",
}


@pytest.mark.parametrize("text", CASES)
def test_words_are_left_out_where_they_stand_alone_or_are_signs(text):
    drop = WordDropper(["<unk>", "[noise]", "uh", "#0", "café"])
    assert drop(text) == CASES[text]
    assert WordDropper([])(text) == text


def test_what_was_left_out_is_counted_and_what_was_not_found_is_said(caplog):
    caplog.set_level("INFO")
    drop = WordDropper(["<unk>", "<noise>", "<unk>"])
    cut = {"supervisions": [{"text": "<unk> a <unk>"}, {"text": "b"}, {}]}
    assert drop.change(cut) and cut["supervisions"][0] == {"text": "a"}
    assert not drop.change(cut) and not drop.change({})
    drop.report()
    assert "<unk> was left out 2 times" in caplog.text
    assert "no text has the word <noise>" in caplog.text
