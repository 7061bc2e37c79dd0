"""Text as the recipe writes it: words in small letters, apostrophes inside of them, no punctuation.

What is spoken but not spelt out (digits, %) is no text to train on, nor is what is damaged:
:func:`unreadable` says so.
"""

import re
import unicodedata

LATIN = "abcdefghijklmnopqrstuvwxyz"
LETTERS = {  # a language that is not here has the letters of every script
    "en": LATIN,
    "es": LATIN + "áéíñóúü",
    "fr": LATIN + "àâæçéèêëîïñôœùûüÿ",
    "it": LATIN + "àèéìíòóùú",
    "ru": "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
}
SPOKEN = "%&@#*/\\"  # punctuation to Unicode, and words to a reader
REASONS = {
    "remark": "brackets, around what may not be said",
    "damaged": "a question mark in place of a letter",
    "digits": "digits, whose reading the text does not tell",
    "symbols": "symbols, whose reading the text does not tell",
    "letters": "letters outside of the language's alphabet",
    "empty": "no letter",
}


def normalise(sentence: str) -> str:
    """The words of a sentence; a second time changes nothing. Hyphens part words."""
    sentence = unicodedata.normalize("NFC", sentence.lower()).replace("’", "'")
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", sentence))


def unreadable(sentence: str, language: str) -> str:
    """Why nobody can tell from a sentence what is said, a key of REASONS; empty: one can."""
    if re.search(r"[][(){}<>]", sentence):
        return "remark"
    # where an encoding was mistaken: "non pu? essere", "la conferenza ? piena"
    if any(following[1].islower() for following in re.finditer(r"\?\s*(\w)", sentence)):
        return "damaged"
    kinds = {unicodedata.category(character)[0] for character in sentence}
    if "N" in kinds:
        return "digits"
    if "S" in kinds or not set(SPOKEN).isdisjoint(sentence):
        return "symbols"
    words = normalise(sentence)
    if not words:
        return "empty"
    foreign = set(words) - set(LETTERS.get(language, words)) - {" ", "'"}
    return "letters" if foreign else ""
