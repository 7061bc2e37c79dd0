"""Text as the recipe writes it: capitals, single spaces, apostrophes and hyphens inside of words.

    echo "L’homme, c’est-à-dire…" | python3 local/normalise.py fr     # L'HOMME C'EST-À-DIRE

Punctuation goes, unless it is part of a word. What is spoken but not spelt out (digits, %, €) and
letters of other alphabets stay, and :func:`problem` names them: nobody knows how they were read.
"""

import re
import sys
import unicodedata
from functools import cache

from alphabets import (
    BEGINNINGS,
    CYRILLIC,
    DOTTED,
    ENDINGS,
    GENITIVES,
    JOINING,
    LETTERS,
    MIDDLE_DOT,
    REPLACED,
    TWINS,
)

APOSTROPHES = dict.fromkeys("’‘‛ʼʹ′´`＇ꞌʻ", "'")
HYPHENS = dict.fromkeys("‐‑﹣－", "-")
LIGATURES = {"ĳ": "ij", "Ĳ": "IJ", "ŉ": "'n", "ŀ": "l·", "Ŀ": "L·"}
SAME = str.maketrans({**APOSTROPHES, **HYPHENS, **LIGATURES})
SPOKEN = "%&@#§*/\\‰"  # punctuation to Unicode, and words to a reader
ZERO_WIDTH_JOINER = "\u200d"
JOINERS = "\u200c" + ZERO_WIDTH_JOINER
DOTS = "·.•‧∙⋅"
PROBLEMS = {
    "digits": "digits, whose reading the text does not tell",
    "symbols": "symbols, whose reading the text does not tell",
    "letters": "letters outside of the language's alphabet",
    "empty-text": "no letter",
}


def normalise(text: str, language: str) -> str:
    """The words of a text in capitals, one space between them; a second time changes nothing."""
    text = _without_invisible(text, language).translate(SAME)
    text = capitals(unicodedata.normalize("NFC", text), language).translate(SAME)
    if language in CYRILLIC:
        text = re.sub(r"\w+", lambda word: _unmixed(word[0], language), text)
    if letter := MIDDLE_DOT.get(language, "").upper():
        text = re.sub(rf"(?<=\w{letter})[{DOTS}](?={letter}\w)", "·", text)
        text = re.sub(rf"(?<!{letter})·|·(?!{letter})", " ", text)
    signs = SPOKEN + ("'-·" if letter else "'-")
    text = "".join(" " if _separates(c) and c not in signs else c for c in text)
    words: list[str] = []
    quoted = False
    for run in re.split(r"\s+|--+", text.replace("''", " ")):
        parts = []
        for part in run.split("-"):
            trimmed = _trim(part, language, quoted)
            quoted |= part.startswith("'") and not trimmed.startswith("'")
            parts.append(trimmed)
        # where nothing is left between two hyphens, they join no words
        words += [joined.strip("-") for joined in re.split("--+", "-".join(parts))]
    return " ".join(word for word in words if word)


def capitals(text: str, language: str) -> str:
    """The text in capitals, in NFC: ß becomes ẞ, and Turkish i becomes İ."""
    for old, new in REPLACED.get(language, {}).items():
        text = text.replace(old, new).replace(old.upper(), new.upper())
    if language in DOTTED:
        text = text.replace("i\u0307", "i").replace("i", "İ").replace("ı", "I")
    text = text.replace("ß", "ẞ").upper()
    # twice, since composing can make a letter that has another capital
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).upper())


def problem(text: str, language: str) -> tuple[str, str] | None:
    """Why a normalised text cannot be trained on, as a key of PROBLEMS and the characters."""
    foreign = sorted(c for c in set(text) - {" "} if not is_allowed(c, language))
    for reason in ("digits", "symbols", "letters"):
        if found := [c for c in foreign if _kind(c) == reason]:
            return reason, " ".join(found)
    if not any(_kind(c) == "letters" for c in text):
        return "empty-text", text
    return None


def is_allowed(character: str, language: str) -> bool:
    """Whether a character may be in a word of a language."""
    if character in JOINERS and language in JOINING.split():
        return True
    if language in LETTERS:
        return character in _alphabet(language)
    return character in "'-" or _kind(character) == "letters"


@cache
def _alphabet(language: str) -> frozenset[str]:
    signs = "'-·" if language in MIDDLE_DOT else "'-"
    return frozenset(capitals(LETTERS[language], language) + signs)


def _kind(character: str) -> str:
    group = unicodedata.category(character)[0]
    return {"N": "digits", "L": "letters", "M": "letters"}.get(group, "symbols")


def _without_invisible(text: str, language: str) -> str:
    """A text without what nobody sees, save joiners where the language has them.

    A joiner is between letters, or ends a word behind a mark, as the half letters of India.
    """
    joining = language in JOINING.split()
    result = []
    for index, character in enumerate(text):
        if joining and character in JOINERS:
            before, behind = (_group(text[at : at + 1]) for at in (max(index, 1) - 1, index + 1))
            half = before == "M" and character == ZERO_WIDTH_JOINER
            if half or (before in ("L", "M") and behind in ("L", "M")):
                result.append(character)
        elif unicodedata.category(character) != "Cf":
            result.append(character)
    return "".join(result)


def _group(character: str) -> str:
    """The first letter of a character's category; empty: there is none."""
    return unicodedata.category(character)[0] if character else ""


def _unmixed(word: str, language: str) -> str:
    """A Cyrillic word whose Latin letters all look like Cyrillic ones is meant to have these."""
    alphabet = _alphabet(language)
    twins = {c for c in word if TWINS.get(c) in alphabet}
    if not twins or not any(c in alphabet for c in word) or set(word) - twins - alphabet:
        return word
    return word.translate(str.maketrans(TWINS))


def _separates(character: str) -> bool:
    """Whether words end at it: punctuation, white space, control characters."""
    category = unicodedata.category(character)
    return category[0] in "PZ" or category in ("Cc", "Cs")


def _trim(part: str, language: str, quoted: bool) -> str:
    """Without apostrophes at the ends that are no part of the word.

    Args:
        quoted: a quotation was opened before.
    """
    core = part.strip("'")
    if not core:
        return ""
    begins = part[0] == "'" and _listed("'" + core, language, BEGINNINGS)
    genitive = language in GENITIVES and core[-1] == "S" and not quoted
    ends = part[-1] == "'" and (genitive or _listed(core + "'", language, ENDINGS))
    return "'" * begins + core + "'" * ends


def _listed(word: str, language: str, table: dict[str, str]) -> bool:
    return word in capitals(table.get(language, ""), language).split()


def main() -> int:
    """Normalise standard input, line by line."""
    for line in sys.stdin:
        print(normalise(line, sys.argv[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
