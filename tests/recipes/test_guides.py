"""Every command that README and the recipes' guides show is one that works.

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

import pytest

from asrprune import cli
from asrprune.arguments import Parser
from tests.recipes.conftest import ROOT, copy_recipe

DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted(ROOT.glob("egs/*/ASR/README.md")))
]
ELSEWHERE = "…"  # stands for words that the reader fills in
OTHERS = {
    "mkdir",
    "git",
    "source",
    "bash",
    "cat",
    "ln",
    "cp",
    "grep",
    "cd",
    "pip",
    "python3",
    "for",
}
OTHERS |= {"apt-get", "dpkg-deb"}


def commands(document):
    """(recipe's folder, command) of a document's blocks of code and of code in its tables."""
    path = ROOT / document
    home = path.parent.relative_to(ROOT).as_posix()
    home = "egs/librispeech/ASR" if home == "." else home
    text, found = path.read_text("utf-8"), []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        found += [(home, line) for line in lines if line.strip() and not line.startswith("#")]
    for row in text.splitlines():
        if row.startswith("| "):
            place = re.search(r"`(egs/\w+/ASR)`", row)
            for code in re.findall("`([^`]+)`", row):
                if code.startswith(("./run.sh", "asrprune ")) and code != "./run.sh":
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


@pytest.mark.parametrize("document, folder, command", VERBS, ids=lambda value: value)
def test_a_verb_takes_it(document, folder, command, monkeypatch, capsys):
    _, verb, *words = split(command)
    if verb == "VERB":
        words, verb = ["--help"], "train"
    monkeypatch.chdir(ROOT / folder)
    parser = Parser(prog=f"asrprune {verb}")
    module = importlib.import_module(cli.VERBS[verb][0])
    module.add_arguments(parser)
    partly = ELSEWHERE in words or not words  # a mere mention
    if words[-1:] == [ELSEWHERE] and words[-2].startswith("--"):
        del words[-2]
    words = [word for word in words if word != ELSEWHERE]
    try:
        parser.parse_args(words)
    except SystemExit as error:
        told = capsys.readouterr().err
        allowed = error.code == 0 or (partly and ": the following arguments are required" in told)
        assert allowed, told
    for word in words:
        if word.startswith("conf/"):
            assert Path(word).is_file(), word
