"""Leave words such as ``<unk>`` or ``[noise]`` out of transcripts."""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)


class WordDropper:
    """Leave words out of the texts of cuts, and count these words.

    A word that begins and ends with a sign, such as ``<unk>`` or ``[noise]``, is found anywhere in
    a text. Any other word is found only between spaces.

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
        """Return a text without the words. A text that has none of the words stays as it is."""
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
            Whether a word was left out.
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
        """Log how often each word was left out, and warn of words that no text had."""
        for word in self.words:
            if count := self._found[word]:
                log.info("--drop-words: %s was left out %d times", word, count)
            else:
                log.warning("--drop-words: no text has the word %s; check how it is written", word)
