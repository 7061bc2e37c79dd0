"""Comparisons on the tiny corpus, or on none."""

import pytest

from asrprune.compare.kinds import study_from
from asrprune.config import save_config
from tests.compare.example_records import records_of, stamped
from tests.conftest import tiny_config


def study_of(folder, corpus, **options):
    """Options of a comparison below ``folder``; the corpus may be a stand-in."""
    path = folder / "tiny.yaml"
    save_config(tiny_config(corpus, training__threads=1, training__epochs=4), path)
    return {
        "config": str(path),
        "manifest_dir": str(corpus.manifests),
        "lang_dir": str(corpus.lang),
        "test_sets": ["dev"],
        "exp_dir": str(folder / "exp"),
        "results": str(folder / "results" / "compare.json"),
        "report": str(folder / "RESULTS.md"),
        "methods": {"easy": ["data_pruning.policy=easy"]},
        "grid": [{"methods": ["easy"], "keep": [0.5], "seeds": [0]}],
        **options,
    }


@pytest.fixture
def study(tmp_path):
    """A comparison of records that nobody runs."""
    values = study_of(tmp_path, FakeCorpus(tmp_path), claims=[])
    return lambda **options: study_from({**values, **options})


@pytest.fixture
def done(study):
    """A comparison, its cells, and the records of all but the random ones."""
    claims = [
        {"claim": "as good", "method": "easy", "keep": 0.5},
        {"claim": "faster", "kind": "faster", "method": "easy", "keep": 0.5, "by": 1.6},
    ]
    grid = [{"methods": ["easy"], "keep": [0.5], "seeds": [0, 1, 2]}]
    whole = study(claims=claims, grid=grid, synthetic=True)
    records = [
        *records_of("full", 1.0, hours=20.0),
        *records_of("full_compressed", 0.5, 0.01, hours=10.0),
        *records_of("easy", 0.5, 0.02, hours=10.0, turnover=0.3, never_kept=0.1),
    ]
    cells = whole.cells()
    return whole, cells, stamped(whole, cells, records)


class FakeCorpus:
    """Where a corpus would be."""

    def __init__(self, folder):
        self.manifests, self.lang = folder / "valid", folder / "lang"
        self.noise = folder / "noise.jsonl.gz"
