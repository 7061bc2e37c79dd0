"""``local/download.py`` of LibriSpeech gets what is missing, and touches nothing else."""

import gzip
import http.client
import importlib
import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

from tests.recipes.test_librispeech import add_utterance

ROOT = Path(__file__).parents[2]


@pytest.fixture
def download(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "egs" / "librispeech" / "ASR" / "local")
    return importlib.import_module("download")


@pytest.mark.parametrize("size", [0, 9])
def test_a_failed_download_names_the_ways_out(size, download, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "dev-clean.tar.gz"

    def fetch(*_):
        archive.write_bytes(b"x" * size)
        raise OSError("no network")

    monkeypatch.setattr(download, "fetch", fetch)
    assert run_download(download, monkeypatch, tmp_path, "dev-clean") == 1
    error = capsys.readouterr().err
    assert "dev-clean could not be downloaded: no network. Run the same command again" in error
    if size:
        assert f"remove {archive} and provide" in error
        archive.unlink()
    add_utterance(tmp_path / "LibriSpeech", "dev-clean")
    assert download.main() == 0  # the copy is taken, and not replaced


def run_download(download, monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["download", *map(str, words)])
    return download.main()


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    """A whole archive of musan; what is asked of the network is already there."""
    source = tmp_path / "source" / "musan"
    source.mkdir(parents=True)
    (source / "noise.wav").write_bytes(os.urandom(50_000))
    monkeypatch.setattr("lhotse.utils.resumable_download", lambda *_, **__: None)
    return pack(tmp_path, "musan")


def pack(tmp_path: Path, part: str) -> Path:
    """The archive of a part, made of what is in source/."""
    archive = tmp_path / "download" / f"{part}.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        for path in (tmp_path / "source").iterdir():
            tar.add(path, path.name)
    return archive


DAMAGE = {
    "cut off": lambda content: content[:-20_000],
    "cut off in its sum": lambda content: content[:-2],
    "a changed byte": lambda content: (
        content[:9_000] + b"%c" % (content[9_000] ^ 1) + content[9_001:]
    ),
    "empty": lambda content: b"",
    "another page": lambda content: b"<html>not found</html>",
    "a false header": lambda content: content[:10] + b"x" * 20 + content[30:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_archive_is_one_message(damage, archive, download, monkeypatch, capsys):
    content = archive.read_bytes()
    archive.write_bytes(DAMAGE[damage](content))
    assert run_download(download, monkeypatch, archive.parent, "musan") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"download: error: {archive} is cut off or damaged (")
    assert "Run the same command again" in error and f"remove {archive} first" in error
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]
    archive.write_bytes(content)
    assert run_download(download, monkeypatch, archive.parent, "musan") == 0
    assert (archive.parent / "musan" / "noise.wav").is_file()


def test_what_lies_beside_a_damaged_archive_is_not_judged(archive, download, monkeypatch, capsys):
    archive.write_bytes(archive.read_bytes()[:-20_000])
    musan = archive.parent / "musan"
    musan.mkdir()
    assert run_download(download, monkeypatch, archive.parent, "musan") == 1
    error = capsys.readouterr().err
    assert f"Remove {archive} to take the folder as it is, or {archive} and {musan} to" in error
    archive.unlink()
    assert download.main() == 0


@pytest.fixture
def split_archive(tmp_path, download, monkeypatch) -> Path:
    """A whole archive of dev-clean, and no network."""
    chapter = add_utterance(tmp_path / "source" / "LibriSpeech", "dev-clean")
    (chapter / "10-20-0000.flac").write_bytes(os.urandom(50_000))
    (chapter.parents[2] / "README.TXT").write_text("a table\n")

    def fetch(*_):
        raise OSError("no network")

    monkeypatch.setattr(download, "fetch", fetch)
    return pack(tmp_path, "dev-clean")


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """What is in all files below a folder, and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_whole_archive_needs_no_network(split_archive, download, monkeypatch, tmp_path):
    folder = split_archive.parent
    half = folder / "LibriSpeech" / ".dev-clean.unpacking" / "LibriSpeech" / "dev-clean"
    half.mkdir(parents=True)  # of a run that was killed
    (half / "stale.flac").touch()
    assert run_download(download, monkeypatch, folder, "dev-clean") == 0
    corpus = files_of(folder / "LibriSpeech")
    assert corpus.pop("dev-clean/.completed")[0] == b""
    source = files_of(tmp_path / "source" / "LibriSpeech")
    assert {name: text for name, (text, _) in corpus.items()} == {
        name: text for name, (text, _) in source.items()
    }
    before = files_of(folder)
    assert download.main() == 0
    assert files_of(folder) == before


def test_an_archive_unpacked_by_hand_is_taken(split_archive, download, monkeypatch):
    folder = split_archive.parent
    subprocess.run(["tar", "xf", split_archive.name], cwd=folder, check=True)
    before = files_of(folder)
    assert run_download(download, monkeypatch, folder, "dev-clean") == 0
    assert files_of(folder) == before


def test_unpacking_that_is_stopped_leaves_no_folder(split_archive, download, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tarfile.TarFile.chmod", stopped)  # comes after the data of each file
        with pytest.raises(KeyboardInterrupt):
            run_download(download, patch, split_archive.parent, "dev-clean")
    assert not (split_archive.parent / "LibriSpeech" / "dev-clean").exists()
    assert run_download(download, monkeypatch, split_archive.parent, "dev-clean") == 0


@pytest.mark.parametrize("half", ["lacks", "cuts off"])
def test_a_folder_that_is_half_its_archive_is_not_touched(
    half, split_archive, download, monkeypatch, capsys
):
    folder = split_archive.parent
    subprocess.run(["tar", "xf", split_archive.name], cwd=folder, check=True)
    split = folder / "LibriSpeech" / "dev-clean"
    audio = split / "10" / "20" / "10-20-0000.flac"
    audio.unlink() if half == "lacks" else audio.write_bytes(audio.read_bytes()[:-1])
    before = files_of(folder)
    assert run_download(download, monkeypatch, folder, "dev-clean") == 1
    error = capsys.readouterr().err
    assert f"{audio} is missing or cut off, and 0 more files of {split_archive}" in error
    assert f"Remove {split} to have it unpacked again, or {split_archive} to take" in error
    assert files_of(folder) == before
    shutil.rmtree(split)
    assert download.main() == 0 and audio.stat().st_size == 50_000


def test_an_archive_of_something_else_is_named(split_archive, download, monkeypatch, capsys):
    other = split_archive.rename(split_archive.with_name("test-clean.tar.gz"))
    assert run_download(download, monkeypatch, split_archive.parent, "test-clean") == 1
    assert f"{other} holds no LibriSpeech/test-clean; remove it" in capsys.readouterr().err
    assert not list(split_archive.parent.glob("LibriSpeech/*"))


@pytest.mark.parametrize("error", [zlib.error("false code"), gzip.BadGzipFile("CRC check failed")])
def test_damage_in_the_middle_is_one_message(error, download, tmp_path, monkeypatch, capsys):
    def fetch(*_):
        raise error

    monkeypatch.setattr(download, "fetch", fetch)
    assert run_download(download, monkeypatch, tmp_path, "dev-clean") == 1
    assert f"dev-clean.tar.gz is cut off or damaged ({error}). Run" in capsys.readouterr().err


def test_a_connection_that_breaks_is_one_message(download, tmp_path, monkeypatch, capsys):
    def fetch(*_):
        raise http.client.IncompleteRead(b"abc", 7)

    monkeypatch.setattr(download, "fetch", fetch)
    assert run_download(download, monkeypatch, tmp_path, "dev-clean") == 1
    error = capsys.readouterr().err
    assert "dev-clean could not be downloaded: IncompleteRead(3 bytes read, 7 more" in error
    assert "Run the same command again to go on" in error


def test_a_split_that_is_none_is_named(download, tmp_path, monkeypatch, capsys):
    assert run_download(download, monkeypatch, tmp_path, "dev-claen") == 1
    error = capsys.readouterr().err
    assert "error: dev-claen: there is no such split; there are" in error
    assert "Run the same command again" not in error
