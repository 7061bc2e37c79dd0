"""Words that are left out of transcripts, such as ``<unk>`` or ``[noise]``."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)


class WordDropper:
    """Leaves words out of the text of cuts, and counts them.

    A word that begins and ends with a sign, as in ``<unk>`` or ``[noise]``, is found anywhere.
    Other words are left out where they stand between spaces.

    Args:
        words: The words to leave out.
    """

    def __init__(self, words: Sequence[str]):
        self.words = tuple(dict.fromkeys(unicodedata.normalize("NFC", word) for word in words))
        self._found: Counter[str] = Counter()
        patterns = []
        for word in sorted(filter(None, self.words), key=len, reverse=True):
            alone = word[0].isalnum() or word[-1].isalnum()
            pattern = re.escape(word)
            patterns.append(rf"(?<!\S){pattern}(?!\S)" if alone else pattern)
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        """Return a text without the words, and as it is if there is none of them."""
        if self._pattern is None:
            return text
        text = unicodedata.normalize("NFC", text)
        if not (found := self._pattern.findall(text)):
            return text
        self._found.update(found)
        return " ".join(self._pattern.sub(" ", text).split())

    def change(self, cut: dict[str, Any]) -> bool:
        """Leave the words out of the supervisions of a cut.

        Args:
            cut: A manifest entry, which is changed in place.

        Returns:
            Whether there was one of them.
        """
        changed = False
        for supervision in cut.get("supervisions") or []:
            text = supervision.get("text") or ""
            before = self._found.total()
            rest = self(text)
            if self._found.total() > before:
                supervision["text"] = rest
                changed = True
        return changed

    def report(self) -> None:
        """Log how often each word was left out, and warn of those that no text had."""
        for word in self.words:
            if count := self._found[word]:
                log.info("--drop-words: %s was left out %d times", word, count)
            else:
                log.warning("--drop-words: no text has the word %s; check how it is written", word)
