"""``tools/new_recipe.sh``, and the guide from an empty folder to a word error rate, as written."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asrprune.data.importers.tables import read_table
from tests.conftest import tone_speech
from tests.recipes.conftest import Recipe

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "egs" / "TEMPLATE"
SIZES = {"train": 24, "dev": 18, "test": 30}  # of the tables of write_takes


@pytest.fixture
def project(tmp_path) -> Recipe:
    """The root of a project, with an apostrophe in its name, and stand-ins for asrprune."""
    recipe = Recipe(tmp_path / "it's & here")
    (recipe.root / "egs").mkdir()
    (recipe.root / "egs" / "TEMPLATE").symlink_to(TEMPLATE)
    return recipe


def new_recipe(project: Recipe, *words: str, code: int = 0) -> str:
    command = [project.root / "tools" / "new_recipe.sh", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project.root)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_a_new_recipe_bears_its_name_and_rehearses_at_once(project):
    message = new_recipe(project, "my_corpus2")
    project.folder = project.root / "egs" / "my_corpus2" / "ASR"
    assert f"{project.folder} is a recipe for my_corpus2" in message
    made = {path.relative_to(project.folder) for path in project.folder.rglob("*.*")}
    kept = {path.relative_to(TEMPLATE / "ASR") for path in (TEMPLATE / "ASR").rglob("*.*")}
    others = ("rehearsal", "data", "exp", "download", "__pycache__")
    assert made == {path for path in kept if not set(others) & set(path.parts)}
    assert "mycorpus" not in "".join(
        path.read_text() for path in project.folder.rglob("*") if path.is_file()
    )
    result = project.run("--rehearsal", "true")
    assert result.stdout.splitlines()[-1].startswith("%WER")
    log = project.log.read_text()
    assert "asrprune validate --corpus my_corpus2 " in log
    assert "--config conf/conformer_tiny.yaml" in log
    assert (
        project.run("--rehearsal", "true", "--dry-run", "true")
        .stdout.splitlines()[0]
        .startswith("# ")
    )
    assert [path.name for path in project.folder.parent.iterdir()] == ["ASR"]


@pytest.mark.parametrize(
    "place", ["else where/recipe", "egs/a/b/c d/ASR", "recipe", "../out/a recipe"]
)
def test_a_recipe_anywhere(place, project, tmp_path):
    folder = Path(os.path.normpath(project.root / place))
    new_recipe(project, "digits", "--dir", str(folder))
    project.folder = folder
    project.run("--rehearsal", "true")
    assert "asrprune decode" in project.commands()
    assert (folder / "rehearsal" / "exp" / "conformer_tiny" / "averaged.pt").exists()
    if project.root in folder.parents:  # the project may be moved
        assert str(tmp_path) not in (folder / "run.sh").read_text()


@pytest.mark.parametrize("end", ["/", "//", "/.", "/x/.."])
def test_a_folder_may_be_named_with_what_a_shell_adds(end, project):
    message = new_recipe(project, "digits", "--dir", "my/recipe" + end)
    folder = project.root / "my" / "recipe"
    assert f"{folder} is a recipe for digits" in message and (folder / "run.sh").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["recipe"]
    before = sorted(project.root.rglob("*"))
    told = new_recipe(project, "digits", "--dir", "my/recipe" + end, code=2)
    assert f"{folder} is there already" in told
    assert sorted(project.root.rglob("*")) == before


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "the name of the corpus is missing; usage: tools/new_recipe.sh NAME [--dir FOLDER]"),
        (("a", "b"), "two names, a and b"),
        (("digits", "--dri", "x"), "unknown option --dri; usage"),
        (("digits", "--dir"), "--dir needs a folder"),
        (("Digits",), "'Digits' is no name for a corpus"),
        (("../digits",), "'../digits' is no name"),
        (("9digits",), "'9digits' is no name"),
        (("on",), "'on' is no name"),
        (
            ("librispeech",),
            "ASR is there already. Choose another name, or another place with --dir",
        ),
    ],
)
def test_what_is_refused(words, message, project):
    (project.root / "egs" / "librispeech" / "ASR").mkdir(parents=True)
    before = sorted(project.root.rglob("*"))
    told = new_recipe(project, *words, code=2)
    assert told.startswith("new_recipe.sh: error: ") and message in told
    assert sorted(project.root.rglob("*")) == before


def blocks(path: Path) -> list[str]:
    """The bash blocks of a page."""
    return re.findall(r"^```bash\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


def commands(path: Path) -> list[list[str]]:
    """The words of every ``./run.sh`` of a page."""
    lines = "".join(blocks(path)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("./run.sh")]


@pytest.mark.parametrize("words", commands(TEMPLATE / "ASR" / "README.md"), ids=shlex.join)
def test_the_readme_of_a_recipe(words, template):
    out = template.run(*words[1:], *(() if "--help" in words else ("--dry-run", "true"))).stdout
    assert ("--epochs" if "--help" in words else "\nasrprune validate ") in out


def write_takes(folder: Path) -> None:
    """A corpus in the guide's layout: takes of a digit by two speakers, each a tone, at 8 kHz."""
    import numpy as np
    import soundfile

    rng = np.random.default_rng(0)
    rows = []
    for speaker, digit, take in (
        (s, d, t) for s in ("anna", "bert") for d in "abc" for t in range(12)
    ):
        split = "test" if take < 5 else "train"
        name = f"{speaker}-{'abc'.index(digit)}-{take:02d}"
        path = Path("audio", split, speaker, f"{name}.flac")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, tone_speech(digit, rng)[::2], 8000)
        rows.append(
            {"id": name, "audio": str(path), "split": split, "speaker": speaker, "text": digit * 2}
        )
    folder.joinpath("manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def follow(guide: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run what the guide says, from the root of a project on."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", guide],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


def as_on_github(folder: Path) -> None:
    """Name the same takes as the corpus does at its source, where there is no list of them."""
    (folder / "manifest.jsonl").unlink()
    (folder / "recordings").mkdir()
    for path in folder.rglob("*.flac"):
        speaker, digit, take = path.stem.split("-")
        path.rename(folder / "recordings" / f"{digit}_{speaker}_{int(take)}.wav")
    shutil.rmtree(folder / "audio")


def test_the_guide_lists_the_takes_as_a_list_has_them(tmp_path):
    """The tables of both layouts have the same takes in the same order."""
    write_takes(tmp_path / "fsdd")
    step = blocks(TEMPLATE / "README.md")[2].replace("/my/fsdd", str(tmp_path / "fsdd"))
    tables = []
    for name in ("list", "github"):
        (tmp_path / name).mkdir()
        done = follow(step, tmp_path / name)
        assert done.returncode == 0 and not done.stderr, done.stderr
        download = tmp_path / name / "download"
        tables.append(
            [list(read_table(download / f"{split}.jsonl", tmp_path / "fsdd")) for split in SIZES]
        )
        if name == "list":
            as_on_github(tmp_path / "fsdd")
    words = {"a": "zero", "b": "one", "c": "two"}
    for size, rows, others in zip(SIZES.values(), *tables, strict=True):
        assert len(rows) == size
        for row, other in zip(rows, others, strict=True):
            assert (row.id, row.speaker) == (other.id, other.speaker)
            assert words[row.text[0]] == other.text and Path(other.path).is_file()


def test_the_guide_as_it_is_written(project, tmp_path):
    write_takes(tmp_path / "fsdd")
    first, *others = blocks(TEMPLATE / "README.md")
    assert first.startswith("bash tools/setup_env.sh\n")
    guide = "".join((first.partition("\n")[2], *others))
    guide = guide.replace("/my/fsdd", str(tmp_path / "fsdd")).replace(
        "cat data/valid", "ls data/valid/*.json #"
    )
    done = follow(guide, project.root, FAKE_LOG=str(project.log))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("%WER")
    download = project.root / "egs" / "digits" / "ASR" / "download"
    sizes = {path.stem: len(path.read_text().splitlines()) for path in download.iterdir()}
    assert sizes == SIZES
    assert "--min-seconds 0.1 --max-seconds 30" in project.log.read_text()
    assert project.commands().count("asrprune validate") == 2  # of the rehearsal, and of the corpus


def test_the_guide_in_earnest(tmp_path):
    """The same steps for a corpus of 72 tones, without stand-ins, but for one small epoch."""
    write_takes(tmp_path / "fsdd")
    (tmp_path / "egs").mkdir()
    (tmp_path / "egs" / "TEMPLATE").symlink_to(TEMPLATE)
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    make, _, tables, _, everything = blocks(TEMPLATE / "README.md")[:5]
    small = "--vocab-size 8 --epochs 1 training.average_period=1 --jobs 1"
    guide = make.partition("\n")[2] + tables + everything.replace("--vocab-size 40", small)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = follow(guide.replace("/my/fsdd", str(tmp_path / "fsdd")), tmp_path, PATH=path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^%WER \S+ \[ \d+ / 30, .* test greedy_search$", done.stdout, re.MULTILINE)
