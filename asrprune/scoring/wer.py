"""Count word and character errors of utterances, from minimal alignments.

Words are compared unchanged: no case folding, no rewriting of numbers. For the character error
rate, words are joined **without spaces**. So the rate has the same meaning for languages with and
without spaces. A wrong word boundary counts only in the word error rate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import kaldialign

NOTHING = ""  # counterpart of an inserted or deleted word in an alignment; no word is empty


@dataclass(frozen=True)
class Utterance:
    """Hold the reference and the recognised words of an utterance. Both may be empty."""

    id: str
    ref: list[str]
    hyp: list[str]


@dataclass(frozen=True)
class ErrorCounts:
    """Hold the numbers of errors, and the number of reference words (or characters)."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    words: int = 0

    @property
    def errors(self) -> int:
        """Return the number of all errors."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Return errors over reference words. Without words: 0, or infinite if there are errors."""
        if self.words:
            return self.errors / self.words
        return float("inf") if self.errors else 0.0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.insertions + other.insertions,
            self.deletions + other.deletions,
            self.substitutions + other.substitutions,
            self.words + other.words,
        )

    def __str__(self) -> str:
        """Return ``4.56 [ 123 / 2698, 10 ins, 20 del, 93 sub ]``, like Kaldi."""
        return (
            f"{100 * self.rate:.2f} [ {self.errors} / {self.words}, {self.insertions} ins, "
            f"{self.deletions} del, {self.substitutions} sub ]"
        )


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs (reference word, recognised word), with `NOTHING` for a missing counterpart.

    The alignment has the least number of errors. All types of errors have the same cost.
    """
    return kaldialign.align(ref, hyp, NOTHING)


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> ErrorCounts:
    """Return the errors of the best alignment."""
    found = kaldialign.edit_distance(ref, hyp)
    return ErrorCounts(found["ins"], found["del"], found["sub"], found["ref_len"])


def characters(words: Iterable[str]) -> str:
    """Return the text that the character error rate compares: the words without spaces."""
    return "".join(words)


def word_errors(utterances: Iterable[Utterance]) -> list[ErrorCounts]:
    """Return the word errors of each utterance."""
    return [count_errors(utterance.ref, utterance.hyp) for utterance in utterances]


def character_errors(utterances: Iterable[Utterance]) -> list[ErrorCounts]:
    """Return the character errors of each utterance."""
    return [
        count_errors(characters(utterance.ref), characters(utterance.hyp))
        for utterance in utterances
    ]


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """Return the sum of the errors of all utterances."""
    return sum(counts, ErrorCounts())
