"""``local/check_corpus.py`` of LibriSpeech names every defect of a corpus."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "egs" / "librispeech" / "ASR" / "local" / "check_corpus.py"
SPLITS = ("train-clean-5", "dev-clean-2")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two splits of two speakers, two chapters and three utterances each."""
    corpus = tmp_path / "LibriSpeech"
    for split in SPLITS:
        for speaker in (1, 2):
            for chapter in (10, 11):
                folder = corpus / split / str(speaker) / str(chapter)
                folder.mkdir(parents=True)
                names = [f"{speaker}-{chapter}-{number:04d}" for number in range(3)]
                for name in names:
                    (folder / f"{name}.flac").write_bytes(b"fLaC")
                table = "".join(f"{name} SOME WORDS\n" for name in names)
                (folder / f"{speaker}-{chapter}.trans.txt").write_text(table)
    (corpus / "SPEAKERS.TXT").write_text("; a table\n")
    return corpus


def check(corpus: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, SCRIPT, *words, corpus, *SPLITS], capture_output=True, text=True
    )


def edit(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def test_a_whole_corpus_passes_in_silence(corpus):
    (corpus / SPLITS[0] / ".completed").touch()
    (corpus / SPLITS[0] / "1" / ".tmp-123-10").mkdir()
    result = check(corpus)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def spoil_nothing_there(chapter: Path) -> str:
    chapter.parents[1].rename(chapter.parents[2] / "elsewhere")
    return "LibriSpeech/train-clean-5 does not exist. Link your copy"


def spoil_empty_split(chapter: Path) -> str:
    for speaker in list(chapter.parents[1].iterdir()):
        speaker.rename(chapter.parents[2] / f"moved-{speaker.name}")
    return "train-clean-5 holds no chapters"


def spoil_missing_audio(chapter: Path) -> str:
    (chapter / "1-10-0001.flac").unlink()
    return "1-10-0001.flac does not exist, though "


def spoil_link_to_audio(chapter: Path) -> str:
    (chapter / "1-10-0001.flac").unlink()
    (chapter / "1-10-0001.flac").symlink_to("elsewhere")
    return "1-10-0001.flac does not exist, though "


def spoil_empty_audio(chapter: Path) -> str:
    (chapter / "1-10-0001.flac").write_bytes(b"")
    return "1-10-0001.flac is empty"


def spoil_missing_transcript(chapter: Path) -> str:
    edit(chapter / "1-10.trans.txt", "1-10-0001 SOME WORDS\n", "")
    return "1-10-0001.flac has no transcript in "


def spoil_empty_transcript(chapter: Path) -> str:
    edit(chapter / "1-10.trans.txt", "1-10-0001 SOME WORDS\n", "1-10-0001 \n")
    return "1-10.trans.txt, line 2: 1-10-0001 has an empty transcript: write its words"


def spoil_empty_line(chapter: Path) -> str:
    edit(chapter / "1-10.trans.txt", "1-10-0001", "\n1-10-0001")
    return "1-10.trans.txt, line 2 is empty"


def spoil_twice(chapter: Path) -> str:
    edit(chapter / "1-10.trans.txt", "1-10-0002", "1-10-0001 OTHER WORDS\n1-10-0002")
    return "line 3: 1-10-0001 is there twice"


def spoil_foreign_line(chapter: Path) -> str:
    edit(chapter / "1-10.trans.txt", "1-10-0000", "1-11-0009 WORDS\n1-10-0000")
    return "line 1: 1-11-0009 does not belong to 1-10"


def spoil_missing_table(chapter: Path) -> str:
    (chapter / "1-10.trans.txt").unlink()
    return "1-10.trans.txt does not exist"


def spoil_empty_table(chapter: Path) -> str:
    for path in chapter.glob("*.flac"):
        path.unlink()
    (chapter / "1-10.trans.txt").write_text("")
    return "1-10.trans.txt is empty"


def spoil_encoding(chapter: Path) -> str:
    (chapter / "1-10.trans.txt").write_bytes("1-10-0000 CAFÉ\n".encode("cp1252"))
    return "1-10.trans.txt, line 1 is not UTF-8. The file seems to be in the encoding CP1252"


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_defect_is_one_error_that_names_the_file(corpus, spoil):
    message = spoil(corpus / SPLITS[0] / "1" / "10")
    result = check(corpus)
    assert result.returncode == 1
    assert message in result.stderr and result.stderr.count("\n") == 1
    assert str(corpus) in result.stderr


def test_further_defects_are_counted_and_listed(corpus):
    for chapter in corpus.glob("*/*/10"):
        next(chapter.glob("*-0002.flac")).unlink()
    assert "there are 3 more problems: python3 local/check_corpus.py --all" in check(corpus).stderr
    assert len(check(corpus, "--all").stdout.splitlines()) == 4


def test_a_large_corpus_takes_seconds(tmp_path):
    corpus = tmp_path / "LibriSpeech"
    for split in SPLITS:
        for chapter in range(100):
            folder = corpus / split / "1" / str(chapter)
            folder.mkdir(parents=True)
            lines = []
            for number in range(50):
                (folder / f"1-{chapter}-{number:04d}.flac").write_bytes(b"fLaC")
                lines.append(f"1-{chapter}-{number:04d} WORDS\n")
            (folder / f"1-{chapter}.trans.txt").write_text("".join(lines))
    began = time.monotonic()
    assert check(corpus).returncode == 0
    assert time.monotonic() - began < 5  # 10 000 utterances; the real corpus has 28 times as many
