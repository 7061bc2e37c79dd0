"""Error counts against a brute-force edit distance."""

import random
from functools import cache

import pytest

from asrprune.scoring.wer import (
    NOTHING,
    ErrorCounts,
    Utterance,
    align,
    character_errors,
    count_errors,
    total,
    word_errors,
)


def distance(ref, hyp):
    @cache
    def least(i, j):
        if not i or not j:
            return i + j
        differs = ref[i - 1] != hyp[j - 1]
        return min(least(i - 1, j - 1) + differs, least(i - 1, j) + 1, least(i, j - 1) + 1)

    return least(len(ref), len(hyp))


def random_pairs(count=300):
    draw = random.Random(0)
    for _ in range(count):
        yield [
            [draw.choice(["A", "B", "CC", "D'"]) for _ in range(draw.randint(0, 7))] for _ in "ab"
        ]


def test_counts_are_minimal_and_those_of_the_alignment():
    for ref, hyp in random_pairs():
        counts, pairs = count_errors(ref, hyp), align(ref, hyp)
        assert counts.errors == distance(tuple(ref), tuple(hyp))
        assert [r for r, _ in pairs if r != NOTHING] == ref
        assert [h for _, h in pairs if h != NOTHING] == hyp
        inserted = sum(r == NOTHING for r, _ in pairs)
        deleted = sum(h == NOTHING for _, h in pairs)
        changed = sum(NOTHING not in pair and pair[0] != pair[1] for pair in pairs)
        assert counts == ErrorCounts(inserted, deleted, changed, len(ref))


def test_a_set_is_the_sum_of_its_utterances():
    utterances = [Utterance(str(i), *pair) for i, pair in enumerate(random_pairs(50))]
    counts = total(word_errors(utterances))
    assert counts.errors == sum(distance(tuple(u.ref), tuple(u.hyp)) for u in utterances)
    assert counts.words == sum(len(u.ref) for u in utterances)


def test_characters_leave_out_the_spaces():
    moved = Utterance("a", ["NOW", "HERE"], ["NO", "WHERE"])
    assert character_errors([moved]) == [ErrorCounts(words=7)]
    assert word_errors([moved]) == [ErrorCounts(substitutions=2, words=2)]


def test_empty_references_and_hypotheses():
    assert count_errors([], []).rate == 0
    assert count_errors([], ["A"]) == ErrorCounts(insertions=1)
    assert count_errors([], ["A"]).rate == float("inf")
    assert count_errors(["A"], []) == ErrorCounts(deletions=1, words=1)
    assert count_errors(["*", "A"], ["A"]) == ErrorCounts(deletions=1, words=2)


def test_a_rate_is_shown_as_kaldi_shows_it():
    counts = ErrorCounts(10, 20, 93, 2698)
    assert str(counts) == "4.56 [ 123 / 2698, 10 ins, 20 del, 93 sub ]"
    assert counts.rate == pytest.approx(123 / 2698)
