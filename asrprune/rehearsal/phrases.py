"""Define the languages of rehearsal corpora: their sentences, accents and sizes.

A phrasebook holds the words and the carrier sentences of a language. All phrasebooks draw the same
numbers. English has its own module, :mod:`asrprune.rehearsal.text`, because existing English
corpora must not change.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from asrprune.rehearsal import dutch, french, italian
from asrprune.rehearsal.text import TEXTS, spell
from asrprune.rehearsal.voices import ENGLISH_ACCENTS


@dataclass(frozen=True)
class Phrasebook:
    """Hold the words of a language, and sentences with slots in braces for words and numbers."""

    language: str  # code of the language in num2words
    words: dict[str, list[str]]  # slot -> words
    sentences: tuple[str, ...]
    numbers: tuple[str, ...]  # sentences of numbers only: few words, and each word is frequent

    def sentence(self, rng: random.Random) -> str:
        """Return a random sentence with numbers as words, in its usual spelling.

        The first letter is lower-case.
        """
        return rng.choice(self.sentences).format_map(_Slots(self, rng))

    def number(self, rng: random.Random) -> str:
        """Return one or two random numbers as a sentence."""
        return rng.choice(self.numbers).format_map(_Slots(self, rng))


@dataclass(frozen=True)
class Language:
    """Define the texts, the voices and the size of a language in rehearsals."""

    texts: dict[str, Callable[[random.Random], str]]  # type, as in TEXTS -> draws a sentence
    accents: tuple[str, ...]  # espeak-ng voices that differ in more than how they read digits
    size: float  # hours of training speech per hour of the largest language


class _Slots:
    """Fill the slots of a sentence. Each slot is a new random draw."""

    def __init__(self, book: Phrasebook, rng: random.Random):
        self._book, self._rng = book, rng

    def __getitem__(self, slot: str) -> str:
        if slot in self._book.words:
            return self._rng.choice(self._book.words[slot])
        return " ".join(self._spell(number, to) for number, to in _NUMBERS[slot](self._rng))

    def _spell(self, number: int | float, to: str) -> str:
        return spell(number, self._book.language, to=to)


Numbers = list[tuple[int | float, str]]  # (number, type in num2words, such as "ordinal")


def _cardinal(low: int, high: int) -> Callable[[random.Random], Numbers]:
    return lambda rng: [(rng.randint(low, high), "cardinal")]


def _digits(rng: random.Random) -> Numbers:
    return [(rng.randrange(10), "cardinal") for _ in range(rng.choice((3, 4)))]


def _decimal(rng: random.Random) -> Numbers:
    return [((rng.randint(1, 99) * 10 + rng.randint(1, 9)) / 10, "cardinal")]


_NUMBERS: dict[str, Callable[[random.Random], Numbers]] = {
    "hour": _cardinal(2, 12),
    "minutes": _cardinal(10, 59),
    "day": _cardinal(2, 31),
    "small": _cardinal(2, 99),
    "number": lambda rng: [(rng.choice((rng.randint(2, 99), rng.randint(100, 999))), "cardinal")],
    "thousands": lambda rng: [(rng.randint(11, 999) * rng.choice((100, 1000)), "cardinal")],
    "ordinal": lambda rng: [(rng.randint(1, 31), "ordinal")],
    "year": lambda rng: [(rng.randint(1900, 2029), "year")],
    "digits": _digits,
    "decimal": _decimal,
}


def _language(code: str, module, accents: tuple[str, ...], size: float) -> Language:
    words = {slot: words.split() for slot, words in module.WORDS.items()}
    book = Phrasebook(code, words, module.SENTENCES, module.NUMBERS)
    return Language({"sentences": book.sentence, "numbers": book.number}, accents, size)


# The sizes are unequal, as in real corpora. The last language is the smallest.
LANGUAGES = {
    "en": Language(TEXTS, ENGLISH_ACCENTS, 1.0),
    "fr": _language("fr", french, ("fr",), 0.7),
    "it": _language("it", italian, ("it",), 0.5),
    "nl": _language("nl", dutch, ("nl",), 0.2),
}
