"""How many tokens the transcripts of a manifest have, by the tokenizer of whoever asks."""

import hashlib
from collections import ChainMap
from collections.abc import Callable, Sequence

import numpy as np

from asrprune.errors import UserError

# texts -> the number of tokens of each
CountTokens = Callable[[list[str]], Sequence[int]]

TEXTS = 4096  # texts that are counted at a time
REMEMBERED = 1 << 20  # texts


def token_counts(count_tokens: CountTokens, texts: Sequence[str]) -> np.ndarray:
    """Return the number of tokens of each text, (N,) int32; equal texts are counted once.

    Raises:
        UserError: ``count_tokens`` does not return a number for each text.
    """
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    try:
        counts = np.asarray(count_tokens(list(numbers)))
    except (TypeError, AttributeError, ValueError) as error:  # it takes one text, say
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
    """Counts the tokens of texts that come one by one, many at a time.

    Copies of an utterance have its text, which is counted once while the first million texts are
    remembered, by a hash of 64 bits.
    """

    def __init__(self, count_tokens: CountTokens):
        self._count_tokens = count_tokens
        self._waiting: list[str] = []
        self._counted: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def add(self, text: str) -> None:
        """Take the next text.

        Raises:
            UserError: as `token_counts`.
        """
        self._waiting.append(text)
        if len(self._waiting) == TEXTS:
            self._count()

    def finish(self) -> np.ndarray:
        """Return the number of tokens of each text that came, (N,) int32.

        Raises:
            UserError: as `token_counts`.
        """
        if self._waiting:
            self._count()
        return np.concatenate(self._counted) if self._counted else np.zeros(0, np.int32)

    def _count(self) -> None:
        keys = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in self._waiting]
        news = {
            key: text
            for key, text in zip(keys, self._waiting, strict=True)
            if key not in self._known
        }
        found = {}
        if news:
            counts = token_counts(self._count_tokens, list(news.values()))
            found = dict(zip(news, counts.tolist(), strict=True))
        both = ChainMap(self._known, found)
        self._counted.append(np.array([both[key] for key in keys], dtype=np.int32))
        if len(self._known) < REMEMBERED:
            self._known.update(found)
        self._waiting = []
