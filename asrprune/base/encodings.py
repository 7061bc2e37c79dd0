"""Read text files in UTF-8, and explain how to convert files in other encodings.

A byte order mark or zero bytes identify an encoding with certainty. Other encodings are guessed
from the letters that they give for the bytes of a file. The message shows how a line reads in the
guessed encoding, so that the user can judge the guess.
"""

import gzip
import io
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from asrprune.base.errors import UserError

LARGEST = 1 << 28  # bytes of a file that are read to recognise its encoding
SAMPLE = 5000  # number of lines with non-ASCII bytes that a guess uses
SHOWN = 24  # characters shown before and after the start of the first non-ASCII character
FITS = 0.6  # minimum plausibility of a guessed encoding; the maximum is 1

MARKS = (  # the longer marks come first
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
TWICE = ("ÿþ".encode(), "þÿ".encode())  # the marks of UTF-16, decoded as Latin-1
NO_TEXT = {  # first bytes of a file -> its type, and what to do
    b"PK\x03\x04": "a spreadsheet or another zip archive. Save it as CSV in UTF-8, or unpack it",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of old Excel. Save it as CSV in UTF-8",
    b"\x1f\x8b": "compressed by gzip. Unpack it (gunzip)",
    b"BZh": "compressed by bzip2. Unpack it (bunzip2)",
    b"\xfd7zXZ": "compressed by xz. Unpack it (unxz)",
    b"PAR1": "a Parquet file. Write it as CSV or JSONL first",
    b"SQLite": "a database of SQLite. Write a table of it as CSV first",
}


def text_lines(path: str | Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, with their line ends.

    Only a line feed ends a line. A byte order mark at the start of the file is left out. Files that
    end in ``.gz`` are unpacked.

    Args:
        path: The file.

    Raises:
        UserError: The file has another encoding, is damaged, or uses carriage returns as line ends.
    """
    path = Path(path)
    with _open(path) as file:
        try:
            for number, line in enumerate(file, 1):
                try:
                    if b"\0" in line:
                        raise not_utf8(path, number, line)
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise not_utf8(path, number, line) from error
                if "\r" in text and "\r" in text.removesuffix("\n").removesuffix("\r"):
                    raise _carriage_return(path, number)
                yield text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}). Copy it here again") from error


def not_utf8(path: Path, number: int, line: bytes) -> UserError:
    """Return the error for a line that is not UTF-8. It names the encoding of the file, if known.

    Args:
        path: The file.
        number: The number of the line, from 1.
        line: The bytes of the line.
    """
    with _open(path) as file:
        data = file.read(LARGEST)
    for start, what in NO_TEXT.items():
        if data.startswith(start):
            return UserError(f"{path} is no text: it is {what}")
    if data.startswith(TWICE):
        return UserError(
            f"{path} was converted from UTF-16 as if it were Latin-1. Take the file that it "
            "was made of, and convert that: iconv -f UTF-16 -t UTF-8"
        )
    if name := next((name for mark, name in MARKS if data.startswith(mark)), "") or _wide(data):
        return UserError(
            f"{path} is in the encoding {name}, and UTF-8 is needed. {_convert(path, name)}"
        )
    if b"\0" in line:
        return UserError(f"{path}, line {number} holds zero bytes, so it is damaged. Mend the line")
    good, bad = _utf8_characters(data)
    if good > bad:
        return UserError(
            f"{path}, line {number} is damaged: {_strange(line)!r} is no UTF-8, though the rest of "
            f"the file is. Mend the line{f' (there are {bad} such bytes)' if bad > 1 else ''}"
        )
    if guess := _guess(data):
        return UserError(
            f"{path}, line {number} is not UTF-8. The file seems to be in the encoding "
            f"{guess.name} ({guess.of}), in which the line reads {_excerpt(line, guess)!r}. "
            f"{_convert(path, guess.name)}"
        )
    return UserError(
        f"{path}, line {number} is not UTF-8 ({_strange(line)!r}), and its encoding is not "
        "recognised. Write the file as UTF-8 with the program that made it"
    )


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _convert(path: Path, encoding: str) -> str:
    """Return the advice to convert a file. It ends in the command."""
    new = shlex.quote(str(_beside(path, "utf8")))
    old = shlex.quote(str(path))
    if path.suffix == ".gz":
        command = f"zcat {old} | iconv -f {encoding} -t UTF-8 | gzip > {new}"
    else:
        command = f"iconv -f {encoding} -t UTF-8 {old} > {new}"
    return f"Convert it, and put the new file in its place: {command}"


def _beside(path: Path, word: str) -> Path:
    """Return a name for a converted file with the same suffix: ``a.tsv`` becomes ``a.utf8.tsv``."""
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return path.with_name(f"{path.name.removesuffix(suffix)}.{word}{suffix}")


def _carriage_return(path: Path, number: int) -> UserError:
    with _open(path) as file:
        data = file.read(LARGEST)
    if data.count(b"\n") * 2 < data.count(b"\r"):
        old, new = (shlex.quote(str(p)) for p in (path, _beside(path, "lf")))
        read = f"zcat {old} | tr '\\r' '\\n' | gzip" if path.suffix == ".gz" else ""
        command = read or f"tr '\\r' '\\n' < {old}"
        return UserError(
            f"the lines of {path} end in a carriage return, as on old Macs, and a line feed is "
            f"needed. Convert it, and put the new file in its place: {command} > {new}"
        )
    return UserError(
        f"{path}, line {number} holds a carriage return inside of the line. Delete it, or write a "
        "space in its place"
    )


def _wide(data: bytes) -> str:
    """Return the encoding of a file with two or four bytes a character and no mark, or ""."""
    if b"\0" not in data:
        return ""
    best, most = "", 0
    for name in WIDE:
        try:
            text = data[: len(data) // 4 * 4 if len(data) == LARGEST else None].decode(name)
        except UnicodeDecodeError:
            continue
        # in the wrong byte order, spaces and line ends become other characters
        spaces = sum(map(text.count, " \t\r\n,"))
        if "\0" not in text and spaces > most:
            best, most = name, spaces
    return best


def _utf8_characters(data: bytes) -> tuple[int, int]:
    """Return the number of valid non-ASCII characters in UTF-8, and the number of invalid bytes."""
    text = data.decode("utf-8", "surrogateescape")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    bad = beyond - len(text.encode("utf-8", "ignore").decode("utf-8")) + (len(text) - beyond)
    return beyond - bad, bad


def _strange(line: bytes) -> bytes:
    """Return the first bytes of a line that are not UTF-8."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return line[error.start : error.end]
    return b""


class _Encoding(NamedTuple):
    """Describe an encoding that iconv and Python know by the same name."""

    name: str
    of: str
    plausible: Callable[[str], float]  # score of a non-ASCII character, from -1 to 1
    latin: bool = False  # words mix non-ASCII and ASCII letters
    common: float = 1.0  # factor of the scores; below 1 for encodings that are rare today


def _among(frequent: str, rare: str, capital: float, character: str) -> float:
    lower = character.lower()
    if character in frequent or character in _SIGNS:
        return 1.0
    if lower in frequent:
        return capital
    return 0.5 if lower in rare else -1.0


def _of_script(first: str, last: str, character: str) -> float:
    return 1.0 if first <= character <= last or character in _SIGNS else -1.0


def _thai(character: str) -> float:
    if character in "านรกอเงมยลวดทสตะปบคหแจพชไใโ่้ีิัุู์":
        return 1.0
    return 0.0 if "\u0e01" <= character <= "\u0e5b" else -1.0


def _japanese(character: str) -> float:
    if "\u3040" <= character <= "\u30ff":
        return 1.0
    if "\uff61" <= character <= "\uff9f":  # half-width katakana
        return -1.0
    return 0.7 if "\u3000" <= character <= "\u9fff" or character >= "\uff00" else -0.5


def _of_standard(encoding: str, first: int, last: int, character: str) -> float:
    """Score a character of an East Asian standard: it is frequent between two lead bytes."""
    if "\u3040" <= character <= "\u30ff":  # kana are in all these standards
        return -1.0
    try:
        lead = character.encode(encoding)[0]
    except UnicodeEncodeError:
        return -0.5
    if first <= lead <= last or "\u3000" <= character <= "\u301f" or character >= "\uff00":
        return 1.0
    return 0.0


_SIGNS = "“”‘’„–—…€«»¿¡°\u00a0"
_WESTERN = partial(_among, "àáâãäåæçèéêëìíîïñòóôöøœùúüßÿ", "õûýðþ", 0.9)
_CYRILLIC = partial(_among, "оеаинтсрвлкмдпуы", "бвгґджзйфхцчшщъьэюяёєіїўљњћђџјѓќѕ№", 0.7)
_ENCODINGS = (  # of two encodings with equal scores, the first is chosen
    _Encoding("CP1252", "Windows and Latin-1, Western Europe", _WESTERN, latin=True),
    _Encoding(
        "CP1250",
        "Windows, Central Europe",
        partial(_among, "ąćęłńóśźżčďěňřšťúůýžáéíäöüőűăâîşţđôß", "ľĺŕëç", 0.9),
        latin=True,
    ),
    _Encoding("CP1254", "Windows, Turkish", partial(_among, "çğıöşüâîİ", "", 0.9), latin=True),
    _Encoding("CP1251", "Windows, Cyrillic", _CYRILLIC),
    _Encoding("KOI8-R", "Russian", _CYRILLIC),
    _Encoding("CP866", "DOS, Cyrillic", _CYRILLIC),
    _Encoding("CP1255", "Windows, Hebrew", partial(_of_script, "\u05d0", "\u05ea")),
    _Encoding(
        "CP1253", "Windows, Greek", partial(_among, "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώ", "ϊϋΐΰ", 0.7)
    ),
    _Encoding("CP1256", "Windows, Arabic", partial(_of_script, "\u060c", "\u06d2")),
    _Encoding("CP874", "Windows, Thai", _thai),
    _Encoding("EUC-JP", "Japanese", _japanese),
    _Encoding("CP932", "Shift-JIS, Japanese", _japanese),
    _Encoding("CP949", "Korean", partial(_of_standard, "euc_kr", 0xB0, 0xC8)),
    _Encoding("GB18030", "Chinese", partial(_of_standard, "gb2312", 0xB0, 0xD7)),
    _Encoding("BIG5", "Chinese, traditional", partial(_of_standard, "big5", 0xA4, 0xC6)),
    _Encoding("MACINTOSH", "old Macs, Western Europe", _WESTERN, True, 0.85),
    _Encoding("CP850", "DOS, Western Europe", _WESTERN, True, 0.85),
)


def _guess(data: bytes) -> _Encoding | None:
    """Return the most plausible encoding of the non-ASCII words, or None if no encoding fits."""
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    scores = [(_plausibility(b"\n".join(lines[:SAMPLE]), e), -n) for n, e in enumerate(_ENCODINGS)]
    for score, negative in sorted(scores, reverse=True):
        if score < FITS:
            return None
        try:
            data.decode(_python(_ENCODINGS[-negative].name))
        except UnicodeDecodeError:  # iconv would fail too
            continue
        return _ENCODINGS[-negative]
    return None


def _plausibility(data: bytes, encoding: _Encoding) -> float:
    """Return the plausibility of the non-ASCII characters, from -3 to 1.

    The score takes the characters alone and within their words.
    """
    try:
        text = data.decode(_python(encoding.name))
    except UnicodeDecodeError:
        return -3.0
    total, count = 0.0, 0
    for word, times in Counter(re.findall(r"\w+|[^\w\s\x00-\x7f]", text)).items():
        if word.isascii():
            continue
        beyond = [character for character in word if character > "\x7f"]
        mixed = any("A" <= character.upper() <= "Z" for character in word)
        worth = encoding.common * sum(map(encoding.plausible, beyond))
        worth -= 2 * sum(a.islower() and b.isupper() for a, b in pairwise(word))
        if not encoding.latin and mixed:
            worth -= 2 * len(beyond)
        elif encoding.latin and not mixed and len(beyond) > 2:
            worth -= len(beyond)
        total += times * worth
        count += times * len(beyond)
    return total / count if count else -3.0


def _python(name: str) -> str:
    return "mac_roman" if name == "MACINTOSH" else name


def _excerpt(line: bytes, encoding: _Encoding) -> str:
    """Return the text around the first non-ASCII character of a line."""
    text = line.decode(_python(encoding.name)).strip()
    at = next((index for index, c in enumerate(text) if c > "\x7f"), 0)
    start, end = max(0, at - SHOWN), at + SHOWN
    return "…" * (start > 0) + text[start:end] + "…" * (end < len(text))
