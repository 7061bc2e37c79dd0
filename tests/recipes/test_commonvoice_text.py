"""CommonVoice's text: what languages' words look like afterwards, and what cannot be trained on."""

import importlib
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

LOCAL = Path(__file__).parents[2] / "egs" / "commonvoice" / "ASR" / "local"


@pytest.fixture(scope="module")
def local():
    """The recipe's own modules can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(LOCAL)
        yield importlib.import_module("normalise")


@pytest.mark.parametrize(
    "language, text, expected",
    [
        ("fr", "L’homme, c’est-à-dire…", "L'HOMME C'EST-À-DIRE"),
        ("fr", "« Où est-elle ? » – l`œuvre", "OÙ EST-ELLE L'ŒUVRE"),
        ("fr", "e\u0301te\u0301", "ÉTÉ"),
        ("it", "Un po’ di pane – dell'anno «mille»", "UN PO' DI PANE DELL'ANNO MILLE"),
        ("it", "perché? È 'così'.", "PERCHÉ È COSÌ"),
        ("nl", "’s Avonds zo’n ijsje, 't is 'goed'", "'S AVONDS ZO'N IJSJE 'T IS GOED"),
        ("nl", "ĳs, foto's, zeeën", "IJS FOTO'S ZEEËN"),
        ("en", "'Twas the dogs' tails -- rock-'n'-roll!", "'TWAS THE DOGS' TAILS ROCK-'N-ROLL"),
        ("en", "He said 'the cats' and “it’s”", "HE SAID THE CATS AND IT'S"),
        ("en", "well\u2010known, a\u00adbout\u200b - or", "WELL-KNOWN ABOUT OR"),
        ("en", "zero\u200cwidth\u200d join\u200eers\ufeff", "ZEROWIDTH JOINERS"),
        ("fa", "می\u200cخواهم\u200c. \u200eنه", "می\u200cخواهم نه"),
        ("hi", "क्\u200dष \u200dक\u200b", "क्\u200dष क"),
        ("ml", "അവന്\u200d\u200f", "അവന്\u200d"),
        ("tr", "Istanbul’da ılık iğne", "ISTANBUL'DA ILIK İĞNE"),
        ("tr", "DİKKAT di\u0307kkat", "DİKKAT DİKKAT"),
        ("de", "Die Straße – „größer“", "DIE STRAẞE GRÖẞER"),
        ("ca", "El col·legi, col.legi, coŀlegi·", "EL COL·LEGI COL·LEGI COL·LEGI"),
        ("cy", "Mae'r tŷ 'n dda", "MAE'R TŶ 'N DDA"),
        ("pl", "Zażółć gęślą jaźń!", "ZAŻÓŁĆ GĘŚLĄ JAŹŃ"),
        ("pt", "Dar-lhe-ei água?", "DAR-LHE-EI ÁGUA"),
        ("es", "¿Qué? ¡El niño!", "QUÉ EL NIÑO"),
        ("ru", "Всё-таки ёлка.", "ВСЁ-ТАКИ ЁЛКА"),
        ("ru", "Первoe, ТB, Москвa.", "ПЕРВОЕ ТВ МОСКВА"),  # o e B a are Latin
        ("uk", "п’ять обʼєктів", "П'ЯТЬ ОБ'ЄКТІВ"),
        ("sv-SE", "Åtta ärliga öl", "ÅTTA ÄRLIGA ÖL"),
        ("ro", "Aceşti băieţi", "ACEȘTI BĂIEȚI"),
        ("hi", "नमस्ते दुनिया।", "नमस्ते दुनिया"),
        ("zh-CN", "你好，世界", "你好 世界"),
    ],
)
def test_words_as_they_are_trained_on(local, language, text, expected):
    assert local.normalise(text, language) == expected
    assert local.problem(expected, language) is None


@pytest.mark.parametrize(
    "language, text, reason, characters",
    [
        ("en", "It is 5 o'clock", "digits", "5"),
        ("en", "½ a pound", "digits", "½"),
        ("en", "fish & chips", "symbols", "&"),
        ("fr", "cent €", "symbols", "€"),
        ("hi", "नमस्ते 3", "digits", "3"),
        ("en", "a café", "letters", "É"),
        ("it", "Привет", "letters", "В Е И П Р Т"),
        ("ru", "hello", "letters", "E H L O"),
        ("ru", "CEO", "letters", "C E O"),  # no Cyrillic word, though all look like Cyrillic ones
        ("ru", "сmart", "letters", "A M R T"),
        ("nl", "…?", "empty-text", ""),
        ("xx", "-- ''", "empty-text", ""),
    ],
)
def test_what_nobody_can_read_out_is_named(local, language, text, reason, characters):
    assert local.problem(local.normalise(text, language), language) == (reason, characters)
    assert reason in local.PROBLEMS


MIXED = st.text(
    st.one_of(st.sampled_from("''’-‐ab sSßiıİ·lL.,\"«вВcIі\u0307\u0301\u200d"), st.characters())
)


@settings(max_examples=400, deadline=None)
@given(
    text=MIXED,
    language=st.sampled_from(["en", "fr", "it", "nl", "tr", "ca", "de", "hi", "az", "ru", "uk"]),
)
def test_a_second_time_changes_nothing(local, text, language):
    found = local.normalise(text, language)
    assert local.normalise(found, language) == found
    assert unicodedata.is_normalized("NFC", found)
    assert found == " ".join(found.split()) and "--" not in found
    if local.problem(found, language) is None:
        assert all(c == " " or local.is_allowed(c, language) for c in found)


def test_the_alphabets_are_letters_that_survive(local):
    letters = importlib.import_module("alphabets").LETTERS
    assert letters.keys() >= {"en", "fr", "it", "nl", "de", "es", "pt", "ca"}
    assert letters.keys() >= {"pl", "cy", "ru", "uk", "tr", "sv", "sv-SE"}
    for language, alphabet in letters.items():
        assert len(set(alphabet)) == len(alphabet), language
        assert all(unicodedata.category(c) == "Ll" for c in alphabet), language
        for letter in alphabet:
            word = local.normalise(letter, language)
            assert local.problem(word, language) is None, (language, letter)


def test_the_command_shows_what_becomes_of_a_text():
    done = subprocess.run(
        [sys.executable, LOCAL / "normalise.py", "fr"],
        input="L’homme\nœuf !\n",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "L'HOMME\nŒUF\n"
