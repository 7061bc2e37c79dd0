"""Counting the tokens of many texts: by the caller's tokenizer, each text once, or refused."""

import numpy as np
import pytest

from asrprune.base.errors import UserError
from asrprune.data_pruning import token_counts
from asrprune.data_pruning.token_counts import TokenCounter


@pytest.mark.parametrize("remembered", [0, 5, 1000])
def test_each_text_is_counted_in_its_place(remembered, monkeypatch):
    monkeypatch.setattr(token_counts, "TEXTS", 7)
    monkeypatch.setattr(token_counts, "REMEMBERED", remembered)
    texts = [f"{'a ' * (number % 11)}{number % 13}" for number in range(100)] * 2
    seen: list[list[str]] = []

    def count(texts: list[str]) -> np.ndarray:
        seen.append(texts)
        return np.array([len(text.split()) for text in texts])

    counter = TokenCounter(count)
    for text in texts:
        counter.add(text)
    assert counter.finish().tolist() == [len(text.split()) for text in texts]
    assert max(map(len, seen)) <= 7
    times = sum(map(len, seen))
    assert times == 100 if remembered == 1000 else times > 100


def test_no_texts():
    assert TokenCounter(lambda texts: []).finish().tolist() == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: len(text.split()),  # of one text
        len,
        lambda texts: [[1, 2] for _ in texts],  # ids, all of a length
        lambda texts: [[1] * number for number, _ in enumerate(texts)],
        lambda texts: [0.5 for _ in texts],
        lambda texts: [-1 for _ in texts],
        lambda texts: [1],
        lambda texts: None,
    ],
)
def test_what_is_no_number_for_each_text_is_refused(wrong):
    counter = TokenCounter(wrong)
    counter.add("a b")
    counter.add("c")
    with pytest.raises(UserError, match="count_tokens must take a list of texts, and return"):
        counter.finish()
