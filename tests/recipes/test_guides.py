"""What README and the recipes' guides show of run.sh and asrprune are commands that work.

Recipes take theirs as a dry run, with the real configurations and stand-ins for what takes long;
the trainings that they print lay out their models. Words of verbs are parsed. The guide of
egs/TEMPLATE/README.md is walked through in test_new_recipe.py, what goes on and fine-tunes in
test_going_on.py.
"""

import importlib
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from asrprune import cli
from asrprune.base.arguments import Parser
from asrprune.data_pruning.policies import load_policy
from asrprune.weight_pruning.masks.blocks import block_scores, parse_block
from tests.recipes.conftest import ROOT, copy_recipe

DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *sorted(ROOT.glob("docs/*.md")),
        *sorted(ROOT.glob("egs/*/ASR/*.md")),
    )
    if path.name != "RESULTS.md"
]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
ELSEWHERE = "…"  # stands for words that the reader fills in
OTHERS = {
    "mkdir",
    "git",
    "source",
    "bash",
    "cat",
    "ln",
    "ls",
    "cp",
    "grep",
    "cd",
    "pip",
    "python3",
    "for",
}
OTHERS |= {"apt", "apt-get", "dpkg-deb"}


def commands(document):
    """(recipe's folder, command) of a document's blocks of code and of code in its tables."""
    path = ROOT / document
    home = path.parent.relative_to(ROOT).as_posix()
    home = "egs/librispeech/ASR" if home in (".", "docs") else home
    text, found = path.read_text("utf-8"), []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [(home, line) for line in lines if line.strip() and not line.startswith("#")]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    by_line = path.name in ("README.md", "howto.md")  # a row of a table names its recipe
    for part in prose.splitlines() if by_line else prose.split("\n\n"):
        place = re.search(r"`(egs/\w+/ASR)`", part)
        for code in re.findall("`([^`]+)`", part):
            code = " ".join(code.split())
            if job := re.fullmatch(r"sbatch (?:--nodes 2 )?tools/slurm.sh (\S+) (.*)", code):
                found.append((job[1], f"./run.sh {job[2]}"))  # what the job runs
            if code.startswith(("./run.sh ", "asrprune ")):
                found.append((place[1] if place else home, code))
    return found


COMMANDS = [
    (document, folder, command) for document in DOCUMENTS for folder, command in commands(document)
]
RECIPES = [one for one in COMMANDS if one[2].startswith("./run.sh")]
VERBS = [one for one in COMMANDS if one[2].startswith("asrprune ")]


def split(command):
    words = shlex.split(command, comments=True)
    return words[: words.index("&&")] if "&&" in words else words


def test_commands_are_found():
    """None is passed over: each is a recipe's, a verb or a common program."""
    assert len(RECIPES) > 30 and len(VERBS) > 15
    first = {split(command)[0] for _, _, command in COMMANDS}
    tools = {word for word in first if word.startswith("tools/")}
    assert all((ROOT / word).exists() for word in tools)
    variables = {word for word in first if re.match(r"\w+=", word)}
    assert first - tools - variables <= OTHERS | {"./run.sh", "asrprune"}, first


@pytest.mark.parametrize("document, folder, command", RECIPES, ids=lambda value: value)
def test_a_recipe_takes_it(document, folder, command, tmp_path, monkeypatch, capsys):
    words = split(command)[1:]
    words = [word.replace("$model", "exp/theirs/averaged.pt") for word in words]
    if ELSEWHERE in command or "conf/theirs.yaml" in words:
        pytest.skip("the reader fills it in")
    recipe = copy_recipe(tmp_path, ROOT / folder)
    for path in (ROOT / folder / "conf").glob("*.yaml"):
        shutil.copy(path, recipe.folder / "conf")
    given = dict(zip(words, words[1:], strict=False))
    for option in ("--init-from", "--bpe-model"):  # must be there
        if option in given:
            words[words.index(option) + 1] = str(tmp_path / "given")
            (tmp_path / "given").touch()
    if "--help" in words:
        assert "Options, with their defaults:" in recipe.run(*words).stdout
        return
    recipe.run(*words, *(() if "--dry-run" in words else ("--dry-run", "true")))
    trainings = [line for line in recipe.log.read_text().splitlines() if " train " in line]
    assert trainings or "--stop-stage" in words
    monkeypatch.chdir(recipe.folder)
    for line in trainings:
        training = shlex.split(line)[1:]
        if "--init-from" in training:  # which is a stand-in
            at = training.index("--init-from")
            del training[at : at + 2]
        assert cli.main(training) == 0, capsys.readouterr().err
        assert ": ok, " in capsys.readouterr().out


def test_what_contributors_write(tmp_path, monkeypatch):
    """The policy and the criterion that CONTRIBUTING.md shows."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert [name for name, _ in blocks] == ["my_policies.py", "my_criteria.py"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    score = np.array([3.0, 1.0, 2.0])
    policy = load_policy("my_policies:loud_first", {"weight": 2.0})
    assert policy.function(SimpleNamespace(score=score)).tolist() == [-6, -2, -4]
    matrix = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    scores = block_scores(matrix, parse_block("2x1"), "my_criteria:cubes")
    assert scores.tolist() == [14, 4]


@pytest.mark.parametrize("document, folder, command", VERBS, ids=lambda value: value)
def test_a_verb_takes_it(document, folder, command, monkeypatch, capsys):
    _, verb, *words = split(command)
    if verb == "VERB":
        words, verb = ["--help"], "train"
    monkeypatch.chdir(ROOT / folder)
    parser = Parser(prog=f"asrprune {verb}")
    module = importlib.import_module(cli.VERBS[verb][0])
    module.add_arguments(parser)
    partly = ELSEWHERE in words or not words or words[-1].startswith("--")  # a mere mention
    words = [word for word in words if word != ELSEWHERE]
    while words and words[-1].startswith("--"):
        assert words.pop() in parser.format_help()
    try:
        parser.parse_args(words)
    except SystemExit as error:
        told = capsys.readouterr().err
        allowed = error.code == 0 or (partly and ": the following arguments are required" in told)
        assert allowed, told
    for word in words:
        if word.startswith("conf/"):
            assert Path(word).is_file(), word
