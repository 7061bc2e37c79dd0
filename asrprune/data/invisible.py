"""Name, count and remove the invisible characters of texts.

A tokenizer treats an invisible character as a letter. Words that differ only in invisible
characters count as errors. Editors and web pages leave most invisible characters behind. Some
invisible characters change how the letters beside them are read or joined, as in Persian and Hindi.
These characters stay, unless the user asks otherwise.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

CHOICES = ("strip", "strip-all", "keep")
SHOWN = 8  # maximum number of characters in a message

# characters that end lines or fields; they are white space and become spaces
_BREAKS = "\x0b\x0c\x1c-\x1f\x85\u2028\u2029"
# joiners, variation selectors, fillers of Korean syllables, and Khmer vowels that nobody writes
_MEANING = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
# controls, and the other characters that Unicode calls ignorable by default
_USELESS = (
    "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_BREAK = re.compile(f"[{_BREAKS}]")
# Latin, Greek and Cyrillic letters do not join: a joiner after such a letter changes nothing
_JOINS = "\u0590-\u1dff\u2c00-\U0010ffff"
_STRIPPED = {
    "strip": re.compile(f"[{_USELESS}]|(?<![{_JOINS}])[\u200c\u200d]"),
    "strip-all": re.compile(f"[{_USELESS}{_MEANING}]"),
}
_INVISIBLE = re.compile(f"[{_BREAKS}{_USELESS}{_MEANING}]")

# Unicode has no names for controls, only aliases
_CONTROLS = {
    0x00: "NULL",
    0x01: "START OF HEADING",
    0x02: "START OF TEXT",
    0x03: "END OF TEXT",
    0x04: "END OF TRANSMISSION",
    0x05: "ENQUIRY",
    0x06: "ACKNOWLEDGE",
    0x07: "BELL",
    0x08: "BACKSPACE",
    0x0B: "LINE TABULATION",
    0x0C: "FORM FEED",
    0x0E: "SHIFT OUT",
    0x0F: "SHIFT IN",
    0x10: "DATA LINK ESCAPE",
    0x11: "DEVICE CONTROL ONE",
    0x12: "DEVICE CONTROL TWO",
    0x13: "DEVICE CONTROL THREE",
    0x14: "DEVICE CONTROL FOUR",
    0x15: "NEGATIVE ACKNOWLEDGE",
    0x16: "SYNCHRONOUS IDLE",
    0x17: "END OF TRANSMISSION BLOCK",
    0x18: "CANCEL",
    0x19: "END OF MEDIUM",
    0x1A: "SUBSTITUTE",
    0x1B: "ESCAPE",
    0x1C: "INFORMATION SEPARATOR FOUR",
    0x1D: "INFORMATION SEPARATOR THREE",
    0x1E: "INFORMATION SEPARATOR TWO",
    0x1F: "INFORMATION SEPARATOR ONE",
    0x7F: "DELETE",
    0x85: "NEXT LINE",
}


def strip(text: str, choice: str) -> str:
    """Return a text without the invisible characters that a choice removes.

    Characters that end lines or fields stay in any case.

    Args:
        text: Any text.
        choice: ``strip`` removes all characters except those that change how letters are read; a
            joiner after a letter that never joins is removed. ``strip-all`` removes all.
            ``keep`` removes none.
    """
    return _STRIPPED[choice].sub("", text) if choice in _STRIPPED else text


def is_empty(text: str) -> bool:
    """Return whether a text holds nothing but white space and invisible characters."""
    return not _INVISIBLE.sub("", text).strip()


def name_of(character: str) -> str:
    """Return what Unicode calls a character, such as ``U+200B ZERO WIDTH SPACE``."""
    code = ord(character)
    return f"U+{code:04X} {unicodedata.name(character, _CONTROLS.get(code, 'CONTROL CHARACTER'))}"


def names_of(characters: Iterable[str]) -> str:
    """Return the names of the first few different characters, in Unicode's order."""
    different = sorted(set(characters))
    shown = ", ".join(map(name_of, different[:SHOWN]))
    return shown + (f" and {len(different) - SHOWN} more" if len(different) > SHOWN else "")


def invisible_in(text: str) -> list[str]:
    """Return the invisible characters of a text."""
    return _INVISIBLE.findall(text)


@dataclass
class Tally:
    """Count the texts that have each invisible character, with the first text as an example.

    Args:
        choice: How the texts are changed; see :func:`strip`.
        found: (character, whether it stays) -> (number of texts, name of the first text).
    """

    choice: str = "keep"
    found: dict[tuple[str, bool], tuple[int, str]] = field(default_factory=dict)

    def add(self, text: str, where: str) -> None:
        """Count the invisible characters of a text.

        Args:
            text: The text before any change.
            where: The utterance, for the message.
        """
        if _INVISIBLE.search(text):
            left = set(_INVISIBLE.findall(strip(text, self.choice)))
            for character in set(_INVISIBLE.findall(text)):
                self._count((character, character in left), 1, where)

    def merge(self, later: "Tally") -> None:
        """Add the counts of later texts."""
        for key, (count, where) in later.found.items():
            self._count(key, count, where)

    def _count(self, key: tuple[str, bool], count: int, where: str) -> None:
        before, first = self.found.get(key, (0, where))
        self.found[key] = (before + count, first)

    def described(self, fates: bool = False) -> str:
        """Return a list of the characters for a message, the most frequent first; empty if none.

        Args:
            fates: Whether to say what became of each character.
        """
        first = sorted(self.found.items(), key=lambda item: (-item[1][0], item[0]))
        listed = [
            f"{name_of(character)} in {count} text{'s' * (count > 1)}, such as {where}"
            + (f" ({_fate(character, stays)})" if fates else "")
            for (character, stays), (count, where) in first[:SHOWN]
        ]
        if len(first) > SHOWN:
            listed.append(f"and {len(first) - SHOWN} more")
        return "; ".join(listed)

    def warn(self, log: logging.Logger, split: str) -> None:
        """Warn of the invisible characters of a split, and say what became of them."""
        if self.found:
            log.warning(
                "%s: texts hold characters that nobody sees: %s. The option "
                "--invisible-characters (%s) decides what becomes of them",
                split,
                self.described(fates=True),
                ", ".join(CHOICES),
            )


def _fate(character: str, stays: bool) -> str:
    """Return what became of a character."""
    if _BREAK.match(character):
        return "now a space"
    return "kept" if stays else "taken out"
