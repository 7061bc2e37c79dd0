"""Imports run one way and stay light; every module says what it is for."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "asrprune"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in FILES}

# the rooms that work alone, with torch, numpy and, for data pruning, lhotse
ALONE = {"transducer", "scoring", "data_pruning", "weight_pruning"}
MODELS = ALONE | {"base", "config", "data"}
DEPLOYED = MODELS | {"training", "decoding", "export"}
# room -> what it may import of asrprune, besides itself
MAY_IMPORT = {
    "base": set(),
    **{room: {"base"} for room in ALONE},
    # of data pruning: what drops time inside of a cut
    "data": {"base", "data_pruning"},
    "rehearsal": {"base", "data"},
    "training": MODELS - {"scoring"},
    # of training: how a model file is read; of weight pruning: the masks of pathways
    "decoding": (MODELS | {"training"}) - {"data_pruning"},
    # a model file is what decoding reads
    "export": DEPLOYED - {"data_pruning"},
    "search": DEPLOYED,
    "compare": DEPLOYED | {"search", "report"},
    "report": DEPLOYED,
    "bench": DEPLOYED,
}


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports anywhere, in full; ``from a import b`` counts as a.b too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def of_asrprune(tree: ast.AST) -> set[str]:
    """The rooms and top modules of asrprune that a tree imports."""
    parts = [name.split(".") for name in imports(tree)]
    return {part[1] for part in parts if part[0] == "asrprune" and len(part) > 1}


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: not the bodies of functions, not type hints."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", TREES)
def test_every_module_says_what_it_is_for(path):
    text = ast.get_docstring(TREES[path])
    assert text and text[0].isupper() or text.startswith("``"), path
    assert text.split("\n\n")[0].endswith("."), path


@pytest.mark.parametrize("path", [path for path in TREES if path.count("/") > 1])
def test_rooms_import_one_way(path):
    room = path.split("/")[1]
    known = of_asrprune(TREES[path]) - {room, "__version__"}
    assert known <= MAY_IMPORT[room], path


def test_every_room_has_its_rule():
    assert {path.split("/")[1] for path in TREES if path.count("/") > 1} == set(MAY_IMPORT)


def test_nobody_imports_the_command_line():
    assert not [path for path, tree in TREES.items() if "cli" in of_asrprune(tree)]


@pytest.mark.parametrize("path", TREES)
def test_what_draws_and_writes_pages_is_imported_where_it_is_used(path):
    modules = {name for node in at_import(TREES[path]) for name in imports(node)}
    drawing = {"matplotlib", "jinja2", "markupsafe"}
    assert not [name for name in modules if name.split(".")[0] in drawing], path


@pytest.mark.parametrize("path", [path for path in TREES if path.startswith("asrprune/scoring")])
def test_scoring_needs_neither_torch_nor_lhotse(path):
    heavy = {name.split(".")[0] for name in imports(TREES[path])} & {
        "torch",
        "lhotse",
        "torchaudio",
    }
    assert not heavy, path


CORPORA = ("librispeech", "libri_speech", "commonvoice", "common_voice", "aishell", "gigaspeech")


@pytest.mark.parametrize(
    "path", [path for path in TREES if "rehears" not in path and "layout" not in path]
)
def test_no_corpus_is_named_in_code(path):
    """In names and texts, that is; a docstring may cite where a model was published."""
    tree = TREES[path]
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
    }
    for node in ast.walk(tree):
        words = [value for value in vars(node).values() if isinstance(value, str)]
        if id(node) not in docstrings:
            found = [word for word in words for name in CORPORA if name in word.lower()]
            assert not found, (path, node.lineno, found)


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh process holds after some imports."""
    code += "\nimport sys\nprint(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_what_a_dry_run_imports_is_light():
    """Options, config and the doors of verbs need no torch; a stage's check takes no seconds."""
    options = [path for path in TREES if path.endswith("options.py")]
    rooms = [path for path in TREES if path.endswith("__init__.py")]
    light = ("config", "cli", "doctor", "bench/verb", "training/train")
    foundations = ("arguments", "encodings", "environment", "errors", "factory", "files", "locks")
    others = [f"asrprune/{name}.py" for name in light]
    others += [f"asrprune/base/{name}.py" for name in (*foundations, "randomness", "scripts")]
    paths = [*options, *rooms, *others]
    assert len(options) >= 5
    assert sum(path.count("/") <= 2 for path in rooms) == 1 + len(MAY_IMPORT)
    modules = [path.removesuffix(".py").replace("/", ".") for path in paths]
    found = modules_after("\n".join(f"import {name}" for name in modules))
    heavy = {"torch", "torchaudio", "lhotse", "numpy", "matplotlib", "sentencepiece", "k2"}
    assert not found & heavy


def test_data_pruning_neither_draws_nor_writes_pages():
    """Torch itself imports jinja2 in some versions; what torch imports is its own affair."""
    alone = modules_after("import torch, lhotse")
    assert not (modules_after("import asrprune.data_pruning") - alone) & {"matplotlib", "jinja2"}


def test_scoring_is_light():
    modules = [path.removesuffix(".py").replace("/", ".") for path in TREES if "/scoring/" in path]
    assert not modules_after(f"import {', '.join(modules)}") & {"torch", "lhotse", "matplotlib"}
