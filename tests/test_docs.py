"""The documentation builds without a warning, and names only files that exist."""

import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import asrprune.data_pruning

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def test_it_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    command += ["-d", str(tmp_path / "doctrees"), str(ROOT / "docs"), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "html" / "reference.html").read_text("utf-8")
    assert "set_epoch" in reference and "gate_gradients" in reference


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_that_are_named_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:asrprune|egs|tools|tests|docs)/[\w./-]+)`", text)
    named += re.findall(r"\]\(((?!https?:)[\w./-]+)\)", text)
    if page.name == "training_step.md":
        rooms = re.findall(r"`((?!tests|asrprune)\w+/[\w./]+\.py)`", text)
        named += [f"asrprune/{name}" for name in rooms]
    assert not [name for name in named if not (ROOT / name).exists() and "digits" not in name]


def test_functions_of_the_drawn_step_exist():
    text = (ROOT / "docs" / "training_step.md").read_text("utf-8")
    for row in re.findall(r"^\| .* \|$", text, re.MULTILINE)[1:]:
        cells = row.split(" | ")
        sources = "".join(
            (ROOT / "asrprune" / name).read_text("utf-8")
            for name in re.findall(r"`([\w/]+\.py)`", cells[2])
        )
        for name in re.findall(r"`([\w.]+)`", cells[1]):
            last = name.rpartition(".")[2]
            assert re.search(rf"(def|class) {last}\b", sources), name


def test_the_loop_of_the_readme_is_the_one_that_the_tests_run():
    documentation = inspect.cleandoc(asrprune.data_pruning.__doc__)
    loop = textwrap.dedent(documentation.partition("::\n\n")[2].partition("\n\nA checkpoint")[0])
    assert loop.strip() in (ROOT / "README.md").read_text("utf-8")
