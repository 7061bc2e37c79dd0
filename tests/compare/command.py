"""``asrprune compare`` as tests call it: with stand-ins for its verbs, or all in this process."""

import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from omegaconf import OmegaConf

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.compare import verb as compare
from asrprune.compare.children import Children
from asrprune.compare.options import StudyOptions
from asrprune.compare.report import marks
from tests.compare.fake_compare import put_in_place

ROOT = Path(__file__).parents[2]


def written_part(options: StudyOptions) -> str | None:
    """What the report holds between its marks; None without them."""
    path = Path(options.report)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    begin, end = marks(options)
    if begin not in text or end not in text:
        return None
    return text.partition(begin)[2].partition(end)[0].strip() + "\n"


class Command:
    """``asrprune compare`` with stand-ins for the verbs that it calls."""

    def __init__(self, folder, values, monkeypatch, capsys):
        """:param values: the comparison, below ``folder``."""
        self.folder, self.path = folder, folder / "compare.yaml"
        self.monkeypatch, self.capsys = monkeypatch, capsys
        self.values = values
        self.write()

    def write(self, **options):
        self.values |= options
        OmegaConf.save(self.values, self.path)

    def run(self, *words, code=0, digest=None, **environment):
        """Run it here; returns what it says.

        :param digest: stands in for that of the training data.
        """
        with self.monkeypatch.context() as patch:
            put_in_place(patch.setattr)
            if digest:
                patch.setattr(compare, "training_data_digest", digest)
            for name, value in environment.items():
                patch.setenv(name, value)
            found = cli.main(["compare", str(self.path), *words])
        said = "".join(self.capsys.readouterr())
        assert found == code, said
        return said

    def start(self, *words, **environment):
        """Start it in a process that can be killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.compare.fake_compare", "compare", self.path, *words],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def cell(self, name):
        return self.folder / "exp" / name

    def calls(self):
        """Verbs by cell, or by network in it, since the last call."""
        paths = sorted(self.folder.glob("exp/**/calls"))
        folder = self.folder / "exp"
        found = {str(path.parent.relative_to(folder)): path.read_text().split() for path in paths}
        for path in paths:
            path.unlink()
        return found

    def wait_for(self, path):
        deadline = time.monotonic() + 30
        while not (path.exists() and path.read_text()):
            assert time.monotonic() < deadline, f"no {path}"
            time.sleep(0.02)
        return path.read_text()

    def records(self):
        return read_json(self.values["results"])


class OneThread(ThreadPoolExecutor):
    """Runs what is submitted at once, in this thread, in which alone a training takes signals."""

    def submit(self, function, *args):
        future = Future()
        future.set_result(function(*args))
        return future


class InProcess(Children):
    """Runs verbs in this process."""

    def run(self, words, log):
        saved, sys.argv = sys.argv, ["asrprune", *words]
        try:
            assert cli.main(list(words)) == 0
        finally:
            sys.argv = saved
        return {"seconds": 2.0, "cpu_seconds": 1.0}
