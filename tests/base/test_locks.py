"""Laws of locks, and of file systems that have none."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

from asrprune.base.errors import UserError
from asrprune.base.locks import open_locked


def test_a_lock_is_held_until_the_file_is_closed_or_its_process_ends(tmp_path):
    path = tmp_path / "deep" / "log"
    with open_locked(path, "mine") as file:
        file.write(b"kept")
        with pytest.raises(UserError, match="^somebody has it$"):
            open_locked(path, "somebody has it")
    holding = (
        "import os, sys; from asrprune.base.locks import open_locked; "
        "file = open_locked(sys.argv[1], ''); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", holding, str(path)]).returncode == -9
    with open_locked(path, "mine") as file:
        file.seek(0)
        assert file.read() == b"kept"


def fail_with(monkeypatch, number, times=99):
    """The first so many locks that are asked for fail with an error of the system."""
    real, calls = fcntl.flock, []

    def flock(*words):
        calls.append(words)
        if len(calls) <= times:
            raise OSError(number, os.strerror(number))
        real(*words)

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize(
    "number",
    [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO, errno.EACCES],
)
def test_a_file_system_without_locks_is_warned_of(number, tmp_path, monkeypatch, caplog):
    fail_with(monkeypatch, number)
    with open_locked(tmp_path / "log", "another run is at work") as file:
        file.write(b"as ever")
    assert (tmp_path / "log").read_bytes() == b"as ever"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    message = caplog.messages[0]
    assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in message
    assert "another run" not in message and "no second run" in message
    assert {path.name for path in tmp_path.iterdir()} == {"log"}


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_held_is_no_missing_lock(number, tmp_path, monkeypatch, caplog):
    """EACCES is what some network file systems say of a lock that is held."""
    fail_with(monkeypatch, number, times=1)  # a file that nobody else has can be locked
    with pytest.raises(UserError, match="^another run is at work$"):
        open_locked(tmp_path / "log", "another run is at work")
    assert not caplog.records
