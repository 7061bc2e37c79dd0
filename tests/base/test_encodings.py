"""Laws of text files that are not UTF-8: the encoding's name, and a command that then works."""

import gzip
import re
import subprocess

import pytest

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError

HEAD = "id\tpath\ttext\na\tx.wav\t"
TEXTS = {
    "fr": HEAD + "l’été était “très” chaud là-bas\n",
    "de": HEAD + "grüße aus köln\nb\ty.wav\tschöne straße\n",
    "caps": HEAD + "CAFÉ À PARIS\n",
    "en": HEAD + "it’s a “test”\n",
    "cs": HEAD + "příští pondělí přijdu\nb\ty.wav\tžluťoučký kůň\n",
    "hu": HEAD + "árvíztűrő tükörfúrógép\n",
    "tr": HEAD + "bugün hava çok güzel değil mi ışık\n",
    "ru": HEAD + "Привет как дела сегодня\nb\ty.wav\tмы идём домой\n",
    "el": HEAD + "καλημέρα σας τι κάνετε\n",
    "he": HEAD + "שלום עולם מה שלומך\n",
    "ar": HEAD + "مرحبا كيف حالك اليوم\n",
    "th": HEAD + "สวัสดีครับ วันนี้\n",
    "ja": HEAD + "こんにちは今日はいい天気ですね\n",
    "ko": HEAD + "안녕하세요 오늘은 날씨가 좋습니다\n",
    "zh": HEAD + "今天天气很好我们去公园散步\n",
    "tw": HEAD + "今天天氣很好我們去公園散步\n",
}
FILES = [
    *(("fr", name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le")),
    *(("fr", name) for name in ("utf-32-be", "cp1252", "mac_roman")),
    *(("de", name) for name in ("latin1", "cp850")),
    *(("ru", name) for name in ("cp1251", "koi8-r", "cp866", "utf-16-le")),
    *(("ja", name) for name in ("cp932", "euc_jp", "utf-16-be")),
    *(("en", "cp1252"), ("caps", "latin1"), ("cs", "cp1250"), ("hu", "cp1250"), ("tr", "cp1254")),
    *(("el", "cp1253"), ("he", "cp1255"), ("ar", "cp1256"), ("th", "cp874"), ("ko", "cp949")),
    *(("zh", "gb18030"), ("tw", "big5")),
]
NAMES = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE", "utf-32-le": "UTF-32LE"}
NAMES |= {"utf-32-be": "UTF-32BE", "latin1": "CP1252", "mac_roman": "MACINTOSH", "euc_jp": "EUC-JP"}


def refusal(path):
    with pytest.raises(UserError) as caught:
        list(text_lines(path))
    return str(caught.value)


@pytest.mark.parametrize(
    "text, encoding, name",
    [(*file, "text") for file in FILES]
    + [("fr", e, name) for e in ("utf-16", "cp1252") for name in ("a table.tsv", "a.tsv.gz")],
)
def test_the_command_of_the_message_converts_the_file(text, encoding, name, tmp_path):
    content = TEXTS[text].encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    message = refusal(tmp_path / name)
    found = re.search(r"(zcat \S+ \| )?iconv -f (\S+) -t UTF-8 .*$", message)
    assert found[2] == NAMES.get(encoding, encoding.upper())
    subprocess.run(found[0], shell=True, check=True, cwd="/")
    (new,) = (path for path in tmp_path.iterdir() if path.name != name)
    assert new.suffixes[-1:] == (tmp_path / name).suffixes[-1:] or name == "text"
    assert "".join(text_lines(new)).removeprefix("\ufeff") == TEXTS[text]


def test_a_guess_shows_how_the_line_reads(tmp_path):
    (tmp_path / "a.tsv").write_bytes(TEXTS["fr"].encode("cp1252"))
    message = refusal(tmp_path / "a.tsv")
    assert "a.tsv, line 2 is not UTF-8. The file seems to be in the encoding CP1252" in message
    assert "l’été était “très” chaud" in message


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_lines_that_end_as_on_old_macs(name, tmp_path):
    content = TEXTS["fr"].replace("\n", "\r").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    message = refusal(tmp_path / name)
    assert "end in a carriage return" in message
    command = message[re.search(r"(zcat|tr) ", message).start() :]
    subprocess.run(command, shell=True, check=True)
    new = tmp_path / name.replace("a.", "a.lf.")
    assert "".join(text_lines(new)) == TEXTS["fr"]


def test_what_is_utf8_is_read(tmp_path):
    """With a mark, with the ends of DOS, packed, and with what looks like the end of a line."""
    text = TEXTS["fr"].replace("très", "tr\u2028\x85\x0bès")
    for name, content in {
        "mark": text.encode("utf-8-sig"),
        "packed.gz": gzip.compress(text.encode()),
        "plain": text.encode(),
        "dos": text.replace("\n", "\r\n").encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        lines = [line.rstrip("\r\n") for line in text_lines(tmp_path / name)]
        assert lines == text.split("\n")[:-1]


@pytest.mark.parametrize(
    "content, message",
    [
        (TEXTS["fr"].encode() + b"caf\xe9\n", r"line 3 is damaged: b'\\xe9' is no UTF-8, though"),
        (TEXTS["ru"].encode()[:-2], r"line 3 is damaged: b'\\xd0' is no UTF-8"),
        (b"a\tb\nc\0d\te\n", "line 2 holds zero bytes"),
        (b"a\rb\tc\nd\te\n", "line 1 holds a carriage return inside of the line"),
        (b"PK\x03\x04\xff\xff", "it is a spreadsheet or another zip archive"),
        (gzip.compress(b"a\tb\n", mtime=0), "it is compressed by gzip. Unpack it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet of old Excel"),
        (b"a\t\x80\x81\x9d\xff\xfe\n" * 3, "its encoding is not recognised"),
        ("ÿþi\0d\0\t\0".encode(), "converted from UTF-16 as if it were Latin-1"),
    ],
)
def test_what_no_conversion_mends(content, message, tmp_path):
    (tmp_path / "a.tsv").write_bytes(content)
    found = refusal(tmp_path / "a.tsv")
    assert re.search(message, found), found
    assert "iconv -f CP1252" not in found


def test_a_packed_file_that_is_cut_off(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXTS["fr"].encode() * 99)[:-20])
    assert "a.gz is damaged" in refusal(tmp_path / "a.gz")
