"""egs/registry.yaml lists what there is, and every recipe dry-runs with every configuration."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from asrprune import cli

ROOT = Path(__file__).parents[2]
REGISTRY = yaml.safe_load((ROOT / "egs" / "registry.yaml").read_text())
KEYS = {"documents", "trainings", "second", "comparisons"}
TRAININGS = [
    (name, config, words or "")
    for name, recipe in REGISTRY.items()
    for config, words in recipe["trainings"].items()
]
SECOND = [
    (name, config, first)
    for name, recipe in REGISTRY.items()
    for config, first in recipe.get("second", {}).items()
]


def tracked(folder):
    """The files of a folder that are in the repository, relative to it."""
    words = ["git", "-C", str(folder), "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in found if (folder / name).is_file()]


def test_every_recipe_is_listed():
    assert set(REGISTRY) == {path.parent.parent.name for path in ROOT.glob("egs/*/ASR/run.sh")}
    assert all(set(recipe) <= KEYS for recipe in REGISTRY.values())


@pytest.mark.parametrize("name", REGISTRY)
def test_all_of_a_recipe_is_listed(name):
    recipe, folder = REGISTRY[name], ROOT / "egs" / name
    comparisons = recipe.get("comparisons", {})
    configs = [*recipe["trainings"], *recipe.get("second", {}), *comparisons]
    results = [f"ASR/results/{file}" for files in comparisons.values() for file in files]
    listed = [*recipe["documents"], *(f"ASR/{config}" for config in configs), *results]
    assert len(set(listed)) == len(listed)
    files = tracked(folder)
    kinds = (".md", ".yaml", ".json", ".png")
    assert set(listed) == {file for file in files if file.endswith(kinds)}
    rest = set(files) - set(listed) - {"ASR/run.sh"}
    assert all(file.startswith("ASR/local/") for file in rest), rest
    readme = (folder / "ASR" / "README.md").read_text()
    assert all(config in readme for config in configs), "README.md tells of every configuration"


# stands in for the command: writes its words down, a line for each call
CALLED = """#!/usr/bin/env bash
printf '%q ' "$@" >>"$CALLS"
echo >>"$CALLS"
"""


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
    """``dry_run(name, *words)``: what run.sh prints; its checks run here, where torch is."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    command = tmp_path / ".venv" / "bin" / "asrprune"
    command.parent.mkdir(parents=True)
    command.write_text(CALLED)
    command.chmod(0o755)

    def run(name, *words):
        folder, calls = ROOT / "egs" / name / "ASR", tmp_path / "calls"
        command = ["./run.sh", "--dry-run", "true", "--stop-stage", "export", *words]
        env = {**os.environ, "CALLS": str(calls), "ASRPRUNE_ROOT": str(tmp_path)}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        monkeypatch.chdir(folder)
        checks = [shlex.split(line) for line in calls.read_text().splitlines()]
        assert checks and all("--dry-run" in check for check in checks)
        for check in checks:
            assert cli.main(check) == 0, capsys.readouterr().err
        return done.stdout + capsys.readouterr().out

    return run


@pytest.mark.parametrize("name, config, words", TRAININGS, ids=lambda value: value or "-")
def test_a_dry_run(name, config, words, dry_run):
    alone = ["--pathways-config", ""] if "second" in REGISTRY[name] else []
    out = dry_run(name, "--config", config, *shlex.split(words), *alone)
    assert f"asrprune train --config {config} " in out
    assert f"{config}: ok, " in out
    assert out.count("\nasrprune export ") == 1


@pytest.mark.parametrize("name, config, first", SECOND, ids=lambda value: value)
def test_a_dry_run_that_goes_on(name, config, first, dry_run):
    words = shlex.split(REGISTRY[name]["trainings"][first] or "")
    out = dry_run(name, "--config", first, "--pathways-config", config, *words)
    assert f"asrprune train --config {config} " in out
    assert f"{config}: ok, " in out and f"{first}: ok, " in out
    assert out.count("\nasrprune export ") == 2
