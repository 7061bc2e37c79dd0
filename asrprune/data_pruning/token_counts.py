"""Count the tokens of a manifest's transcripts, with the tokenizer of the caller."""

import hashlib
from collections import ChainMap
from collections.abc import Callable, Sequence

import numpy as np

from asrprune.base.errors import UserError

# texts -> the number of tokens of each
CountTokens = Callable[[list[str]], Sequence[int]]

TEXTS = 4096  # texts that are counted at a time
REMEMBERED = 1 << 20  # texts whose number of tokens is remembered


def token_counts(count_tokens: CountTokens, texts: Sequence[str]) -> np.ndarray:
    """Return the number of tokens of each text, (N,) int32; equal texts are counted once.

    Raises:
        UserError: ``count_tokens`` does not return a number for each text.
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    try:
        counts = np.asarray(count_tokens(list(numbers)))
    except (TypeError, AttributeError, ValueError) as error:  # for example, it takes one text only
        raise _wrong(repr(error)) from error
    if counts.shape != (len(numbers),) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise _wrong(f"it returned {str(counts.tolist()):.60} for {len(numbers)} texts")
    return counts.astype(np.int32)[[numbers[text] for text in texts]]


def _wrong(reason: str) -> UserError:
    return UserError(
        f"count_tokens must take a list of texts, and return the number of tokens of each "
        f"({reason}). With sentencepiece: lambda texts: [len(ids) for ids in sp.encode(texts)]."
    )


class TokenCounter:
    """Counts the tokens of texts that come one by one, many texts at a time.

    Copies of an utterance have the same text. The first million different texts are remembered by a
    64-bit hash, and counted only once.
    """

    def __init__(self, count_tokens: CountTokens):
        self._count_tokens = count_tokens
        self._waiting: list[str] = []
        self._counted: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def add(self, text: str) -> None:
        """Add the next text.

        Raises:
            UserError: as in `token_counts`.
        """
        self._waiting.append(text)
        if len(self._waiting) == TEXTS:
            self._count()

    def finish(self) -> np.ndarray:
        """Return the number of tokens of each text that was added, (N,) int32.

        Raises:
            UserError: as in `token_counts`.
        """
        if self._waiting:
            self._count()
        return np.concatenate(self._counted) if self._counted else np.zeros(0, np.int32)

    def _count(self) -> None:
        keys = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in self._waiting]
        new_texts = {
            key: text
            for key, text in zip(keys, self._waiting, strict=True)
            if key not in self._known
        }
        found = {}
        if new_texts:
            counts = token_counts(self._count_tokens, list(new_texts.values()))
            found = dict(zip(new_texts, counts.tolist(), strict=True))
        both = ChainMap(self._known, found)
        self._counted.append(np.array([both[key] for key in keys], dtype=np.int32))
        if len(self._known) < REMEMBERED:
            self._known.update(found)
        self._waiting = []
