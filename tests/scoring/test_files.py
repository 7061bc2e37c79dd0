"""Result files: what is written is read again, and the error listing adds up."""

import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.scoring.files import (
    read_recogs,
    result_files,
    write_errors,
    write_recogs,
    write_results,
)
from asrprune.scoring.wer import Utterance, total, word_errors

SET = [
    Utterance("84-121123-0001", ["IT'S", "SEVEN", "O'CLOCK"], ["ITS", "SEVEN", "O", "CLOCK"]),
    Utterance("84-121123-0000", [], ["UH"]),
    Utterance("empty", [], []),
    Utterance("silent", ["SAY", "NOTHING"], []),
    Utterance("right", ["A", "B", "C"], ["A", "B", "C"]),
    Utterance("mixed", ["A", "B", "C", "D", "E"], ["A", "X", "C", "C", "E", "F"]),
]

WORD = st.text(min_size=1, max_size=5).filter(
    lambda text: len(text.split()) == 1 and text.split()[0] == text
)
WORDS = st.lists(
    WORD | st.sampled_from(["O'CLOCK", '"', "\\", "'\"", "->", "*", "]", "ß", "你"]), max_size=5
)
IDS = st.text(
    st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, max_size=9
)


# the first draw reads Unicode's tables
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(IDS, st.tuples(WORDS, WORDS), max_size=4))
def test_recogs_are_read_as_they_were_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("recogs") / "recogs.txt"
    utterances = [Utterance(name, *words) for name, words in content.items()]
    write_recogs(path, utterances)
    assert read_recogs(path) == utterances


def test_recogs_have_the_known_form(tmp_path):
    write_recogs(tmp_path / "r.txt", [Utterance("a-1", ["A", "O'CLOCK"], [])])
    expected = "a-1:\tref=['A', \"O'CLOCK\"]\na-1:\thyp=[]\n"
    assert (tmp_path / "r.txt").read_text() == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a:\tref=['A']\n", "line 1: not one ref and one hyp"),
        ("a:\tref=['A']\nb:\thyp=['A']\n", "line 1: not one ref and one hyp"),
        ("a:\thyp=['A']\na:\tref=['A']\n", "line 1: not one ref and one hyp"),
        ("a:\tref=[]\na:\thyp=[]\na:\tref=[]\na:\thyp=[]\n", "line 3: not one ref and one hyp"),
        ("a:\tref=['A']\na:\thyp=['A", "cut off in its last line"),
        ("a:\tref=['A']\na:\thyp=[__import__('os')]\n", "line 2: not of the form"),
        ("a:\tref=[1, 2]\na:\thyp=[]\n", "line 1: not of the form"),
        ("a ref A\n", "line 1: not of the form"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, message):
    path = tmp_path / "recogs-x.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_recogs(path)
    assert str(path) in str(error.value)


def test_bytes_that_are_no_text_are_not_scored(tmp_path):
    path = tmp_path / "recogs-x.txt"
    path.write_bytes("a:\tref=['CAF\u00c9']\na:\thyp=[]\n".encode("latin-1"))
    with pytest.raises(UserError, match="recogs-x.txt is no UTF-8 text"):
        read_recogs(path)


def test_a_missing_file_names_its_stage(tmp_path):
    with pytest.raises(UserError, match="stage \\(8\\) makes it"):
        read_recogs(tmp_path / "none.txt")
    with pytest.raises(UserError, match="cannot stand in a result file"):
        write_recogs(tmp_path / "r.txt", [Utterance("a\nb", [], [])])


def sections(path):
    parts = path.read_text().split("\n\n")
    assert [part.split(":")[0] for part in parts[1:]] == [
        "PER-UTT DETAILS", "SUBSTITUTIONS", "DELETIONS", "INSERTIONS", "PER-WORD STATS",
    ]  # fmt: skip
    return [part.strip("\n").split("\n")[1:] for part in parts[1:]], parts[0]


def test_the_error_listing_adds_up(tmp_path):
    write_errors(tmp_path / "errs.txt", SET)
    (details, substitutions, deletions, insertions, stats), head = sections(tmp_path / "errs.txt")
    counts = total(word_errors(SET))
    assert f"%WER = {100 * counts.rate:.2f}" in head
    assert (
        f"{counts.insertions} insertions, {counts.deletions} deletions, {counts.substitutions} "
        f"substitutions, over {counts.words} reference words"
    ) in head
    for lines, expected in (
        (substitutions, counts.substitutions),
        (deletions, counts.deletions),
        (insertions, counts.insertions),
    ):
        assert sum(int(line.split()[0]) for line in lines) == expected
    in_ref, in_hyp = Counter(), Counter()
    for utterance in SET:
        in_ref.update(utterance.ref)
        in_hyp.update(utterance.hyp)
    rows = {word: tuple(map(int, numbers)) for word, *numbers in map(str.split, stats)}
    assert rows.keys() == in_ref.keys() | in_hyp.keys()
    for word, (correct, errors, of_ref, of_hyp) in rows.items():
        assert (of_ref, of_hyp) == (in_ref[word], in_hyp[word])
        assert errors == of_ref + of_hyp - 2 * correct


def test_both_texts_follow_from_the_listed_alignment(tmp_path):
    write_errors(tmp_path / "errs.txt", SET)
    (details, *_), _ = sections(tmp_path / "errs.txt")
    for line, utterance in zip(details, SET, strict=True):
        name, shown = line.split(":\t")
        assert name == utterance.id
        for side, words in ((1, utterance.ref), (2, utterance.hyp)):
            text = re.sub(r"\((.*?)->(.*?)\)", lambda m, side=side: m[side], shown)
            assert [word for word in text.split() if word != "*"] == words
    assert "mixed:\tA (B->X) C (D->C) E (*->F)" in details


def test_a_set_writes_its_three_files(tmp_path):
    counts = write_results(tmp_path / "greedy_search", "test", "epoch-2-avg-1", "greedy", SET)
    assert counts == total(word_errors(SET))
    folder = tmp_path / "greedy_search"
    assert sorted(path.name for path in folder.iterdir()) == [
        "errs-test-epoch-2-avg-1.txt",
        "recogs-test-epoch-2-avg-1.txt",
        "wer-summary-test-epoch-2-avg-1.txt",
    ]
    assert read_recogs(folder / "recogs-test-epoch-2-avg-1.txt") == SET
    summary = (folder / "wer-summary-test-epoch-2-avg-1.txt").read_text().splitlines()
    assert summary[0].split("\t") == ["settings", "WER", "CER"]
    assert summary[1].split("\t")[:2] == ["greedy", f"{100 * counts.rate:.2f}"]


def test_a_set_does_not_take_the_files_of_another(tmp_path):
    for name in ("test-clean-epoch-2-avg-1", "test-epoch-2-avg-1", "test-model_x", "test-other-y"):
        write_recogs(tmp_path / f"recogs-{name}.txt", [])
    found = [path.name for path in result_files(tmp_path, "test")]
    assert sorted(found) == ["recogs-test-epoch-2-avg-1.txt", "recogs-test-model_x.txt"]
    assert result_files(tmp_path / "absent", "test") == []
