"""A file is whole or absent."""

import errno
import gzip
import os
import subprocess
import sys

import pytest

from asrprune.base.errors import UserError
from asrprune.base.files import (
    atomic_path,
    explain_failed_write,
    read_json,
    write_json,
    write_text,
)


def test_a_new_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "folder" / "new.jsonl.gz"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffixes == path.suffixes
        with gzip.open(temporary, "wt") as file:
            file.write("whole")
        assert not path.exists()
    assert gzip.decompress(path.read_bytes()) == b"whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with open(path) as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_it_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append("fsync") or fsync(fd))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or replace(*names))
    write_text(tmp_path / "file", "x")
    assert calls == ["fsync", "rename", "fsync"]  # the file, its name, the folder


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_explained(number, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(UserError) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, "full")
    assert f"cannot write {path}: {os.strerror(number)}" in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE, errno.ENOSYS])
def test_other_failures_name_the_file(number, tmp_path):
    path = tmp_path / "file"
    with pytest.raises(UserError) as caught, atomic_path(path):
        raise OSError(number, "no")
    assert f"cannot write {path}: {os.strerror(number)}. " in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_errors_of_other_files_pass():
    with pytest.raises(PermissionError), explain_failed_write("file"):
        raise PermissionError(errno.EACCES, "no", "other")
    with pytest.raises(gzip.BadGzipFile), explain_failed_write("file"):
        raise gzip.BadGzipFile("not a gzipped file")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_is_none_the_worse(number, tmp_path, monkeypatch):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    write_text(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"


def test_json(tmp_path):
    value = {"b": [1.5, None], "a": "é"}
    write_json(tmp_path / "x.json", value)
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert (
        read_json(tmp_path / "x.json") == value
        and "é" in text
        and text.index("b") < text.index("a")
    )
    with pytest.raises(UserError, match="none.json does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="bad.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_what_a_killed_process_left_is_removed(tmp_path):
    program = "import os, sys; from asrprune.base.files import atomic_path\n"
    program += "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os._exit(9)"
    subprocess.run([sys.executable, "-c", program, tmp_path / "killed.txt"], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".txt"]  # it did leave something
    elsewhere = tmp_path / ".tmp-anotherhost-1-file.txt"
    elsewhere.write_text("at work")
    with atomic_path(tmp_path / "one.txt") as first:
        first.write_text("1")
        write_text(tmp_path / "two.txt", "2")
        assert first.exists()  # this process is alive
    assert {path.name for path in tmp_path.iterdir()} == {"one.txt", "two.txt", elsewhere.name}
