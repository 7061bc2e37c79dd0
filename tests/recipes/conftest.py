"""Recipes to try the shared shell on: copies that run with stand-ins for what takes long."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRISPEECH = ROOT / "egs" / "librispeech" / "ASR"
ASTERISK = ROOT / "egs" / "asterisk" / "ASR"
COMMONVOICE = ROOT / "egs" / "commonvoice" / "ASR"
TEMPLATE = ROOT / "egs" / "TEMPLATE" / "ASR"


class Recipe:
    """A recipe's folder below a copy of the project's root."""

    def __init__(self, root: Path):
        self.root = root
        self.folder = root / "egs" / "corpus" / "ASR"
        self.log = root / "log"
        (root / ".venv" / "bin").mkdir(parents=True)
        (root / "tools").symlink_to(ROOT / "tools")
        for fake in (Path(__file__).parent / "fakes").iterdir():
            (root / ".venv" / "bin" / fake.name).symlink_to(fake)
        self.log.touch()

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        """Start ``run.sh`` in a process group of its own."""
        if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            # what nohup ignores, children ignore as well; but not what has a handler
            signal.signal(signal.SIGHUP, lambda *_: None)
        return subprocess.Popen(
            [str(self.folder / "run.sh"), *words],
            cwd=self.root,
            env={**os.environ, "FAKE_LOG": str(self.log), **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess:
        """Run ``run.sh`` to its end and check its exit status."""
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        return subprocess.CompletedProcess(words, code, out, err)

    def commands(self) -> list[str]:
        """The commands that ran since the last call, as their first two words."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return [" ".join(line.split()[:2]) for line in lines if " --dry-run " not in line]

    def wait_for_hang(self) -> int:
        """Wait until a stand-in hangs; its process id."""
        path = Path(f"{self.log}.hangs")
        deadline = time.monotonic() + 20
        while not (path.exists() and path.read_text().strip()):
            assert time.monotonic() < deadline, "nothing hangs"
            time.sleep(0.01)
        number = int(path.read_text())
        path.unlink()
        return number


def copy_recipe(tmp_path: Path, source: Path, *configs: str) -> Recipe:
    """A recipe's scripts with stand-ins for asrprune, lhotse and its configurations."""
    recipe = Recipe(tmp_path)
    recipe.folder.mkdir(parents=True)
    shutil.copy(source / "run.sh", recipe.folder)
    shutil.copytree(
        source / "local", recipe.folder / "local", ignore=shutil.ignore_patterns("__pycache__")
    )
    (recipe.folder / "conf").mkdir()
    for name in configs:
        (recipe.folder / "conf" / f"{name}.yaml").write_text("# a comment\nseed: 1\n")
    return recipe


@pytest.fixture
def librispeech(tmp_path: Path) -> Recipe:
    """LibriSpeech's recipe with stand-ins for asrprune and lhotse."""
    return copy_recipe(tmp_path, LIBRISPEECH, "rehearsal", "conformer")


@pytest.fixture
def commonvoice(tmp_path: Path) -> Recipe:
    """CommonVoice's recipe with a stand-in for asrprune; its local scripts are the real ones."""
    return copy_recipe(tmp_path, COMMONVOICE, "rehearsal", "emformer_streaming", "pathways")


@pytest.fixture
def asterisk(tmp_path: Path) -> Recipe:
    """The recipe for Asterisk's prompts, its local scripts, and a stand-in for asrprune."""
    return copy_recipe(tmp_path, ASTERISK, "conformer_tiny")


@pytest.fixture
def template(tmp_path: Path) -> Recipe:
    """The recipe for any corpus with stand-ins for asrprune and lhotse."""
    return copy_recipe(tmp_path, TEMPLATE, "conformer", "conformer_tiny")


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[[str, str], Recipe]:
    """Make a recipe of an option block and a body."""

    def make(options: str, body: str) -> Recipe:
        recipe = Recipe(tmp_path)
        recipe.folder.mkdir(parents=True)
        script = recipe.folder / "run.sh"
        script.write_text(
            "#!/usr/bin/env bash\n# A recipe for a test.\nset -euo pipefail\n"
            'cd "$(dirname "${BASH_SOURCE[0]}")"\n'
            '. "${ASRPRUNE_ROOT:-${PWD%/*/*/*}}/tools/path.sh"\n'
            f'{options}\n. parse_options.sh "$@"\n{body}'
        )
        script.chmod(0o755)
        return recipe

    return make
