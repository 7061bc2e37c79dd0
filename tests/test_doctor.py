"""The doctor's report: what there is, what is missing, and what to do about it."""

import importlib

import pytest
import torch

from asrprune import cli, doctor
from asrprune.base.environment import git_state, machine, usable_cores, versions


@pytest.fixture
def broken(monkeypatch):
    """``broken(name, error)``: a package whose import fails."""
    original = importlib.import_module

    def make(name: str, error: Exception):
        def importing(module, *args):
            if module == name:
                raise error
            return original(module, *args)

        monkeypatch.setattr(doctor.importlib, "import_module", importing)

    return make


def test_a_sound_installation(capsys):
    assert cli.main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name, version in versions().items():
        assert f"{name:<14} {version}\n" in out
    assert torch.__version__.split("+")[0] in out
    assert "loss backend" in out and "device" in out
    assert out.endswith("ready to train\n") and "not ready" not in out


def test_a_torchaudio_of_another_build(broken, capsys):
    broken("torchaudio", OSError("undefined symbol: _ZN3c10\nmore"))
    assert doctor.main(None) == 1
    out = capsys.readouterr().out
    assert "-> torchaudio does not import: undefined symbol: _ZN3c10\n" in out
    assert "-> install torch and torchaudio of one release and build\n" in out
    assert out.endswith("not ready to train\n")


@pytest.mark.parametrize("name", ["torch", "lhotse"])
def test_what_is_missing_makes_it_unready(name, broken, capsys):
    broken(name, ImportError(f"No module named {name!r}"))
    assert doctor.main(None) == 1
    assert f"-> {name} does not import" in capsys.readouterr().out


def test_an_import_error_without_words(broken, capsys):
    broken("lhotse", RuntimeError())
    assert doctor.main(None) == 1
    assert "-> lhotse does not import: RuntimeError\n" in capsys.readouterr().out


@pytest.mark.parametrize("module, use", [("num2words", "rehearsals"), ("sherpa_onnx", "exports")])
def test_rehearsals_are_an_extra(module, use, broken, capsys):
    broken(module, ImportError("no"))
    assert doctor.main(None) == 0
    out = capsys.readouterr().out
    assert f"{module} is missing; {use} need it: bash tools/setup_env.sh" in out


@pytest.mark.parametrize("there, line", [(True, "k2"), (False, "torch")])
def test_the_loss_backend_is_named(there, line, monkeypatch, capsys):
    from asrprune.transducer import k2_backend

    monkeypatch.setattr(k2_backend, "k2_available", lambda: (there, "k2 is too old"))
    assert doctor.main(None) == 0
    out = capsys.readouterr().out
    assert f"{'loss backend':<14} {line}\n" in out
    assert ("-> k2: k2 is too old. " in out) is not there


def test_environment(tmp_path, monkeypatch):
    import asrprune
    from asrprune.base import environment

    assert versions()["asrprune"] == asrprune.__version__ and "lhotse" in versions()
    assert int(machine()["cores"]) == usable_cores() >= 1
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "x.py"))
    assert git_state() == ""
    monkeypatch.setenv("PATH", "")
    assert git_state() == ""
