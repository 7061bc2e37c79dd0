"""Weigh texts by language for a shared tokenizer, and check that a tokenizer can spell them.

A tokenizer can spell a word if encoding gives no ``<unk>`` and decoding gives the same word back.
Then a model that has learnt the word can write the word. A word with letters that the tokenizer
does not know cannot be spelt. The word ``<unk>`` cannot be spelt where ``<unk>`` is a symbol.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from asrprune.base.errors import UserError

if TYPE_CHECKING:
    from asrprune.data.tokenizer import Tokenizer

SHOWN = 40  # maximum number of characters in a message; some scripts have thousands
SHOWN_WORDS = 8
TRIED = 1000  # whole texts per language and set that are spelt, in addition to all words
EVALUATED = 0.02  # share of an evaluation set's characters that may always be unknown
MARK = re.compile(r"<[^<>\s]+>|\[[^][\s]+\]|^#0$")  # pattern of symbols that are no words

Labelled = Sequence[tuple[str, str]]  # (language, text); language "" if a cut has none

log = logging.getLogger(__name__)


def balanced(texts: Labelled, balance: float) -> list[str]:
    """Return the texts, with the texts of smaller languages several times.

    A language of n characters gets a weight proportional to n ** ``balance``, as in the sampling of
    XLM (Conneau and Lample 2019, section 3.1). The texts of the largest language come once.

    Args:
        texts: Texts with their languages.
        balance: 1 leaves the texts as they are; 0 gives all languages the same weight.
    """
    sizes: Counter[str] = Counter()
    for language, text in texts:
        sizes[language] += len(text)
    if balance == 1 or len(sizes) < 2:
        return [text for _, text in texts]
    result = []
    for language, size in sizes.items():
        own = [text for other, text in texts if other == language]
        times = (max(sizes.values()) / size) ** (1 - balance)
        result += own * int(times) + own[: round(times % 1 * len(own))]
    return result


@dataclass
class Spelling:
    """How a tokenizer spells the texts of one language of a set."""

    characters: int = 0  # characters of all words
    unspelt: int = 0  # characters that cannot be spelt
    unknown: Counter[str] = field(default_factory=Counter)  # unknown character -> times
    changed: dict[str, str] = field(default_factory=dict)  # word or text -> its decoded tokens
    marks: Counter[str] = field(default_factory=Counter)  # symbol such as <unk> -> times
    learnt: Counter[str] = field(default_factory=Counter)  # symbol spelt by letters -> times

    @property
    def share(self) -> float:
        """The share of the characters that cannot be spelt."""
        return self.unspelt / max(self.characters, 1)


class Speller:
    """Spell words with a tokenizer, each word once.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: "Tokenizer"):
        self._tokenizer = tokenizer
        self._known: dict[str, bool] = {}  # character -> whether the tokenizer knows it

    def spell(self, texts: Sequence[str]) -> Spelling:
        """Spell all words of normalised texts, and some whole texts.

        Args:
            texts: The texts of one language.

        Returns:
            What could not be spelt.
        """
        result = Spelling()
        words: Counter[str] = Counter()
        for text in texts:
            words.update(text.split(" "))
        words.pop("", None)
        for word, times in words.items():
            result.characters += times * len(word)
            self._add(result, word, times)
        if not result.unspelt:
            for text in texts[:TRIED]:
                if (back := self._back(text)) != text:
                    result.changed[text] = back or ""
                    result.unspelt += len(text.replace(" ", ""))  # as characters are counted
        return result

    def _add(self, result: Spelling, word: str, times: int) -> None:
        marks = MARK.findall(word)
        back = self._back(word)
        if back == word:
            if marks:
                pieces = {self._tokenizer.symbols[index] for index in self._tokenizer.encode(word)}
                result.learnt.update({mark: times for mark in marks if mark not in pieces})
            return
        unknown = [c for c in word if not self._knows(c)]
        if marks:
            result.marks.update(dict.fromkeys(marks, times))
        elif unknown:
            for character in unknown:
                result.unknown[character] += times
            result.unspelt += times * len(unknown)
            return
        else:
            result.changed[word] = self._tokenizer.decode(self._tokenizer.encode(word))
        result.unspelt += times * len(word)

    def _back(self, text: str) -> str | None:
        """Return the decoded tokens of a text; None if a token is unknown."""
        ids = self._tokenizer.encode(text)
        return None if self._tokenizer.unk_id in ids else self._tokenizer.decode(ids)

    def _knows(self, character: str) -> bool:
        if character not in self._known:
            self._known[character] = self._tokenizer.knows(character)
        return self._known[character]


def check_spelling(
    tokenizer: "Tokenizer",
    trained: Labelled,
    others: Mapping[str, Labelled],
    most: float,
    folder: Path,
    given: bool = False,
) -> None:
    """Check that a tokenizer can spell the texts of every set, in every language.

    Args:
        tokenizer: The tokenizer.
        trained: The texts to train on.
        others: The texts of evaluation sets, by their names.
        most: The maximum share of the characters of a language, 0 to 1, that the tokenizer may be
            unable to spell. In evaluation sets the limit is at least ``EVALUATED``, because models
            are compared on unchanged evaluation sets. A language that no training text has gets
            the limit ``most``. A warning names the characters that are admitted.
        folder: The folder of the tokenizer, for the messages.
        given: Whether the tokenizer was trained elsewhere.

    Raises:
        UserError: A share is above its limit. The message names the set, the language, the
            characters and the remedies.
    """
    speller = Speller(tokenizer)
    languages = {language for language, _ in trained}
    for name, texts in {"": trained, **others}.items():
        for language in sorted({language for language, _ in texts}):
            found = speller.spell([text for other, text in texts if other == language])
            if found.learnt:
                log.warning(
                    "the texts%s hold the symbols %s, which a model learns to write letter by "
                    "letter. --drop-words leaves them out",
                    f" of {name}" if name else "",
                    _times(found.learnt),
                )
            if not found.unspelt:
                continue
            # language "": the training texts have no language
            missing = language not in languages and "" not in languages
            limit = most if not name or missing else max(most, EVALUATED)
            what = (
                f"{folder} cannot spell {_whose(name, language)}: {_what(found, tokenizer)} "
                f"({found.unspelt} of {found.characters} characters)"
            )
            if found.share > limit:
                raise UserError(
                    f"{what}. {_ways_out(found, name, missing and language, given)}, or admit it: "
                    f"--max-unknown {math.ceil(found.share * 1e4) / 1e4}"
                )
            log.warning("%s. No model can write what is missing", what)


def _whose(name: str, language: str) -> str:
    """Return the set and the language of texts, for a message."""
    if name:
        return f"the texts of {name}" + (f" in {language}" if language else "")
    return language or "the texts"


def _what(found: Spelling, tokenizer: "Tokenizer") -> str:
    """Return what cannot be spelt, for a message."""
    parts = []
    if found.unknown:
        part = _some(found.unknown)
        if cased := [c for c in sorted(found.unknown) if _other_case(c, tokenizer)]:
            other = _other_case(cased[0], tokenizer)
            part += f" (letters of the other case are known, such as {other} for {cased[0]})"
        parts.append(part)
    if found.marks:
        parts.append(f"the symbols {_times(found.marks)}")
    if found.changed:
        pairs = [
            f"{word[:SHOWN]} (which becomes {back[:SHOWN]!r})"
            for word, back in list(found.changed.items())[:SHOWN_WORDS]
        ]
        rest = len(found.changed) - len(pairs)
        parts.append("the words " + ", ".join(pairs) + (f" … ({rest} more)" if rest else ""))
    return ", and ".join(parts)


def _other_case(character: str, tokenizer: "Tokenizer") -> str:
    """Return a letter in the other case, if the tokenizer knows that letter; else empty."""
    for other in (character.lower(), character.upper()):
        if other != character and tokenizer.knows(other):
            return other
    return ""


def _ways_out(found: Spelling, name: str, missing: str | bool, given: bool) -> str:
    """Return what the user can do about texts that cannot be spelt, for a message."""
    ways = []
    if found.marks:
        ways.append(f"leave the symbols out with --drop-words '{' '.join(sorted(found.marks))}'")
    if missing:
        ways.append(f"train on some {missing} as well (--train-splits)")
    elif name and (found.unknown or found.changed):
        ways.append("write the texts as those of the training set are written")
    elif given:
        ways.append("train the tokenizer on these texts (no --bpe-model)")
    elif not found.marks:
        ways.append("write the texts with other characters")
    line = ", ".join(ways)
    return line[0].upper() + line[1:]


def _times(counts: Counter[str]) -> str:
    """Return the most frequent words with their counts, for a message."""
    first = [f"{word} ({count} times)" for word, count in counts.most_common(SHOWN_WORDS)]
    return ", ".join(first) + (" …" if len(counts) > SHOWN_WORDS else "")


def _some(characters: Iterable[str]) -> str:
    """Return the first characters in Unicode's order, separated by spaces."""
    first = sorted(characters)
    return " ".join(first[:SHOWN]) + (f" … ({len(first)})" if len(first) > SHOWN else "")
