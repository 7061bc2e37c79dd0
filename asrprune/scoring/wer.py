"""Word and character errors of one utterance or many, from minimal alignments.

Words are compared as they are: no case folding, no rewriting of numbers. For the character error
rate the words are joined **without spaces**, so that it means the same in languages that write
spaces and in those that do not; a misplaced word boundary counts in the word error rate alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import kaldialign

NOTHING = ""  # stands opposite an inserted or deleted word; no word is empty


@dataclass(frozen=True)
class Utterance:
    """What was said and what was recognised, in words; either may be empty."""

    id: str
    ref: list[str]
    hyp: list[str]


@dataclass(frozen=True)
class ErrorCounts:
    """Errors and the reference words (or characters) that they are counted over."""

    insertions: int = 0
    deletions: int = 0
    substitutions: int = 0
    words: int = 0

    @property
    def errors(self) -> int:
        """All errors."""
        return self.insertions + self.deletions + self.substitutions

    @property
    def rate(self) -> float:
        """Errors over reference words; without any of either 0, without words infinite."""
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
        """``4.56 [ 123 / 2698, 10 ins, 20 del, 93 sub ]``, as Kaldi prints it."""
        return (
            f"{100 * self.rate:.2f} [ {self.errors} / {self.words}, {self.insertions} ins, "
            f"{self.deletions} del, {self.substitutions} sub ]"
        )


def align(ref: Sequence[str], hyp: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (reference word, recognised word), `NOTHING` where one has no counterpart.

    Minimal in the number of errors, each of which costs the same.
    """
    return kaldialign.align(ref, hyp, NOTHING)


def count_errors(ref: Sequence[str], hyp: Sequence[str]) -> ErrorCounts:
    """The errors of the best alignment."""
    found = kaldialign.edit_distance(ref, hyp)
    return ErrorCounts(found["ins"], found["del"], found["sub"], found["ref_len"])


def characters(words: Iterable[str]) -> str:
    """What the character error rate compares: the words without the spaces between them."""
    return "".join(words)


def word_errors(utterances: Iterable[Utterance]) -> list[ErrorCounts]:
    """The word errors of each utterance."""
    return [count_errors(utterance.ref, utterance.hyp) for utterance in utterances]


def character_errors(utterances: Iterable[Utterance]) -> list[ErrorCounts]:
    """The character errors of each utterance."""
    return [
        count_errors(characters(utterance.ref), characters(utterance.hyp))
        for utterance in utterances
    ]


def total(counts: Iterable[ErrorCounts]) -> ErrorCounts:
    """The sum over utterances."""
    return sum(counts, ErrorCounts())
