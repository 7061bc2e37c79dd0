"""The command line: verbs, options and exit statuses."""

import argparse
import errno
import os
import subprocess
import sys

import pytest

from asrprune import cli
from asrprune.base.arguments import Parser, true_or_false
from asrprune.base.errors import UserError, nearest

WHERE = "ASRPRUNE_LOG=DEBUG shows where"


@pytest.fixture
def verb(monkeypatch):
    """``verb(work)``: a verb "doctor" that does ``work(args)``."""

    def make(work):
        class Module:
            __doc__ = "A verb."

            @staticmethod
            def add_arguments(parser):
                parser.add_argument("--two-words", type=int, default=1)
                parser.add_argument("overrides", nargs="*")

            main = staticmethod(work)

        monkeypatch.setitem(sys.modules, "asrprune.doctor", Module)

    return make


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(words, capsys):
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: asrprune {verb}" in out
    module = sys.modules[cli.VERBS[verb][0]]
    assert " ".join(module.__doc__.split())[:40] in " ".join(out.split())


def test_unknown_verb(capsys):
    assert cli.main(["tran"]) == 2
    assert "unknown verb 'tran' (did you mean 'train'?)" in capsys.readouterr().err


@pytest.mark.parametrize("result, status", [(None, 0), (0, 0), (3, 3)])
def test_exit_status_is_the_verbs(result, status, verb):
    verb(lambda args: result)
    assert cli.main(["doctor"]) == status


def test_errors_for_the_user_have_no_traceback(verb, capsys):
    def fail(args):
        raise UserError("the file is missing")

    verb(fail)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "asrprune doctor: error: the file is missing\n"


def test_errors_of_files_have_no_traceback(verb, tmp_path, capsys):
    """Root may read every file, but no folder as one."""

    def failing(path):
        return lambda args: open(path)

    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file or dir")):
        verb(failing(path))
        assert cli.main(["doctor"]) == 1
        assert capsys.readouterr().err.startswith(f"asrprune doctor: error: {path}: {reason}")


@pytest.mark.parametrize(
    "error, message",
    [
        (PermissionError(errno.EACCES, "Permission denied", "a.tsv"), "a.tsv: Permission denied"),
        (OSError(errno.EXDEV, "Cross-device link", "a", None, "b"), "a -> b: Cross-device link"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "cannot write: No space left on device. Free some space and run the same command again",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. A disk or a network file "),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system. This file system"),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files. Raise the limit (ul"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory. Use fewer proc"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "Broken pipe. The program that read this"),
        (OSError(errno.ENOSYS, "Function not implemented"), "Function not implemented"),
        (OSError("odd"), "odd"),
        # as torch has it of a data loader's process
        (
            FileNotFoundError("Caught FileNotFoundError in DataLoader\n  File x\n[Errno 2] a"),
            "[Errno 2] a",
        ),
        (MemoryError(), "memory ran out. Use fewer processes"),
        (
            ModuleNotFoundError("No module named 'h5py'", name="h5py"),
            "the Python package h5py is missing. Install it: pip install h5py",
        ),
        (
            ModuleNotFoundError("No module named 'kaldi_native_io'", name="kaldi_native_io.x"),
            "the Python package kaldi-native-io is missing. Install it: pip install kaldi-native",
        ),
        (
            ImportError("libcudart.so.12: cannot open", name="torchaudio._torchaudio"),
            "the Python package torchaudio cannot be loaded (libcudart.so.12: cannot open).",
        ),
    ],
)
def test_errors_of_the_system_are_one_message(error, message, verb, capsys, caplog):
    def fail(args):
        raise error

    verb(fail)
    caplog.set_level("DEBUG")
    assert cli.main(["doctor"]) == 1
    assert caplog.records[-1].exc_info[1] is error
    told = capsys.readouterr().err
    assert told.startswith(f"asrprune doctor: error: {message}") and told.endswith(f" ({WHERE})\n")
    assert told.count("\n") == 1


@pytest.mark.parametrize("words", [["doctor"], ["--help"]])
@pytest.mark.parametrize("output", ["full", "closed"])
def test_output_that_cannot_be_written_is_one_message(output, words):
    if output == "full" and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    read, write = os.pipe()
    os.close(read)
    with open("/dev/full" if output == "full" else write, "w") as file:
        if output == "full":
            os.close(write)
        done = subprocess.run(
            [sys.executable, "-m", "asrprune.cli", *words],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
        )
    reason = "No space left on device" if output == "full" else "Broken pipe"
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "WARNING" not in line][1:] == []
    assert reason in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'asrprune.misspelt'", name="asrprune.misspelt"),
        ImportError(
            "cannot import name 'x' from 'asrprune.base.files'", name="asrprune.base.files"
        ),
    ],
)
def test_our_own_wrong_imports_are_bugs(error, verb):
    def fail(args):
        raise error

    verb(fail)
    with pytest.raises(ImportError):
        cli.main(["doctor"])


def test_bugs_have_one(verb):
    def fail(args):
        raise KeyError("bug")

    verb(fail)
    with pytest.raises(KeyError):
        cli.main(["doctor"])


def test_ctrl_c(verb, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    verb(interrupted)
    assert cli.main(["doctor"]) == 130
    assert "interrupted; the same command goes on from here" in capsys.readouterr().err


def test_bad_log_level(monkeypatch, capsys):
    monkeypatch.setenv("ASRPRUNE_LOG", "loud")
    assert cli.main(["doctor"]) == 2
    assert "ASRPRUNE_LOG=LOUD is no log level" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["a=1", "b=2", "--two-words", "5"],
        ["--two_words", "5", "a=1", "b=2"],
        ["a=1", "--two-words=5", "b=2"],
        ["--two_words=5", "a=1", "b=2"],
    ],
)
def test_options_and_words_in_any_order(words, verb):
    seen = []
    verb(lambda args: seen.append((args.two_words, args.overrides)))
    assert cli.main(["doctor", *words]) == 0
    assert seen == [(5, ["a=1", "b=2"])]


@pytest.mark.parametrize(
    "words, text",
    [
        (["--two-word", "5"], "unknown option --two-word (did you mean '--two-words'?)"),
        (["--two-wrods=5", "a=1"], "unknown option --two-wrods (did you mean '--two-words'?)"),
        (["--two-words", "x"], "invalid int value: 'x'"),
        (["--two-words"], "expected one argument"),
    ],
)
def test_bad_options(words, text, verb, capsys):
    verb(lambda args: pytest.fail("must not run"))
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert text in error and "asrprune doctor --help lists every option" in error


def test_values_keep_their_underscores():
    parser = Parser()
    parser.add_argument("--method-name")
    parser.add_argument("rest", nargs="*")
    args = parser.parse_args(["--method_name=greedy_search", "data.max_duration=3"])
    assert args.method_name == "greedy_search" and args.rest == ["data.max_duration=3"]


def test_true_or_false():
    assert all(true_or_false(text) is True for text in ("true", "True", "1", "yes"))
    assert all(true_or_false(text) is False for text in ("false", "FALSE", "0", "no"))
    with pytest.raises(argparse.ArgumentTypeError, match="'maybe' is neither true nor false"):
        true_or_false("maybe")


def test_nearest():
    assert nearest("epcohs", ["epochs", "seed"]) == " (did you mean 'epochs'?)"
    assert nearest("xyz", ["epochs", "seed"]) == nearest("a", []) == ""


@pytest.mark.parametrize(
    "words, status, text",
    [
        (["bench"], 2, "required: export|loss|masks|pathways|pruning|recipe|shapes|supernet|train"),
        (["bench", "trian"], 2, "invalid choice: 'trian'"),
        (["bench", "train", "--stps", "3"], 2, "required: --config"),
        (["bench", "--help"], 0, "the training loop"),
        (["bench", "train", "--help"], 0, "--rounds"),
        (["report"], 2, "required: data|pathways"),
        (["report", "exp/conformer"], 2, "invalid choice: 'exp/conformer'"),
        (["report", "data", "--help"], 0, "--hardest"),
        (["report", "pathways", "--help"], 0, "--manifest-dir"),
    ],
)
def test_a_verb_of_verbs(words, status, text, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == status
    assert text in "".join(capsys.readouterr())
