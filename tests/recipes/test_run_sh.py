"""Every ``run.sh`` is short, its help lists every option, and what it sources are functions."""

import re
import shutil
from pathlib import Path

import pytest

from tests.recipes.conftest import Recipe, copy_recipe

ROOT = Path(__file__).parents[2]
RUNS = sorted(ROOT.glob("egs/*/ASR/run.sh"))
SHARED = (ROOT / "tools" / "options.sh").read_text("utf-8")
SCRIPTS = [
    *ROOT.glob("tools/*.sh"),
    *ROOT.glob("egs/*/ASR/*.sh"),
    *ROOT.glob("egs/*/ASR/local/*.sh"),
]
SCRIPTS += [ROOT / ".ci" / "run", *(ROOT / "tests" / "recipes" / "fakes").iterdir()]
LIBRARIES = [ROOT / "tools" / f"{name}.sh" for name in ("stages", "transducer", "pathways")]
LIBRARIES += [ROOT / "tools" / "importers.sh", *ROOT.glob("egs/*/ASR/local/*.sh")]


def recipe_of(path: Path) -> str:
    return path.parents[1].name


def options(text: str) -> dict[str, str]:
    """The lines of options, by name."""
    return {
        line.partition("=")[0]: line for line in text.splitlines() if re.match("[a-z_0-9]+=", line)
    }


def block(run: Path) -> str:
    """The option block of a ``run.sh``, with what it takes from files of options."""
    text = run.read_text("utf-8").split("\n. parse_options.sh")[0]
    files = re.findall(r"^\. (options\w*\.sh)$", text, re.MULTILINE)
    assert files[0] == "options.sh"
    return "\n".join([(ROOT / "tools" / file).read_text("utf-8") for file in files] + [text])


@pytest.mark.parametrize("run", RUNS, ids=recipe_of)
def test_run_sh_is_short(run):
    assert len(run.read_text("utf-8").splitlines()) <= 45


@pytest.mark.parametrize("run", RUNS, ids=recipe_of)
def test_help_lists_every_option_with_its_default_and_a_comment(run, tmp_path):
    recipe = copy_recipe(tmp_path, run.parent)
    text = recipe.run("--help").stdout
    assert "Stages: 0 download, 1 manifests" in text
    own, shared = text.split("\nOptions that recipes share")
    found = options(block(run))
    assert len(options(SHARED)) > 30 and set(options(SHARED)) <= set(found)
    for name, line in found.items():
        value = re.match(r"[a-z_0-9]+=(\"[^\"]*\"|'[^']*'|\S*)", line)[1].strip("\"'") or '""'
        option = f"\n  --{name.replace('_', '-')} {value}\n        "
        assert text.count(option) == 1
        assert (option in shared) or name not in options(SHARED)
        assert not re.match(r"(\([^)]*\) *)?\n", text.split(option)[1]), f"{name} has no comment"
    assert own.startswith(run.read_text("utf-8").splitlines()[1].strip("# "))


def test_a_new_option_is_one_edit(tmp_path):
    shutil.copytree(ROOT / "tools", tmp_path / "changed")
    with open(tmp_path / "changed" / "options.sh", "a") as file:
        file.write("patience=7 # how long to wait\n")
    for run in RUNS:
        recipe = copy_recipe(tmp_path / recipe_of(run), run.parent)
        (recipe.root / "tools").unlink()
        (recipe.root / "tools").symlink_to(tmp_path / "changed")
        assert "  --patience 7\n        (integer) how long to wait\n" in recipe.run("--help").stdout
        told = recipe.run("--patience", "long", code=2).stderr
        assert told == "run.sh: error: --patience: 'long' is no integer\n"


@pytest.mark.parametrize("script", LIBRARIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_when_functions_are_sourced(script):
    text = script.read_text("utf-8")
    outside = re.sub(
        r"^\w+\(\) \{.*?(^\}| \})(?= *(#.*)?$)", "", text, flags=re.MULTILINE | re.DOTALL
    )
    outside = re.sub(r"^declare -a \w+=\(\n.*?^\)$", "", outside, flags=re.MULTILINE | re.DOTALL)
    for line in outside.splitlines():
        constant = re.fullmatch(r"(declare (-[aA]) |)\w+=\S*( \w+=\S*)*( *#.*)?", line)
        assert (
            not line.strip()
            or line.lstrip().startswith("#")
            or constant
            or line == (f". {'stages' if script.stem == 'transducer' else 'transducer'}.sh")
        ), line


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shell_file_evaluates_text(script):
    for line in script.read_text("utf-8").splitlines():
        assert not line.strip().startswith("eval ") and "$(eval" not in line


def test_a_recipe_elsewhere_says_where_the_project_is(tmp_path):
    recipe: Recipe = copy_recipe(tmp_path, ROOT / "egs" / "fsdd" / "ASR")
    moved = tmp_path / "moved"
    shutil.move(recipe.folder, moved)
    recipe.folder = moved
    assert "tools/path.sh: No such file or directory" in recipe.run("--help", code=1).stderr
    assert "--epochs" in recipe.run("--help", ASRPRUNE_ROOT=str(recipe.root)).stdout
