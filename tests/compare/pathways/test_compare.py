"""A comparison of models of several languages from end to end."""

import shutil

import pytest
from omegaconf import OmegaConf

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.compare import verb as compare
from asrprune.compare.kinds import load_study
from tests.compare.command import Command, InProcess, OneThread, written_part
from tests.compare.conftest import FakeCorpus
from tests.compare.pathways.comparison import TRAININGS, values_of
from tests.languages import LANGUAGES, in_languages

WHOLE = ["train", "average", "decode", "score"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """With stand-ins for the verbs."""
    values = values_of(tmp_path, FakeCorpus(tmp_path))
    return Command(tmp_path, values, monkeypatch, capsys)


def test_a_training_begins_when_those_before_it_are_done(command):
    said = command.run("--jobs", "2", code=1, FAKE_FAIL="train imp-fr-seed0")
    assert "imp-fr-seed0 failed: train ended with status 3" in said
    assert "fixed-seed0 failed: it needs unfinished cells: imp-fr-seed0" in said
    calls = command.calls()
    assert "fixed-seed0" not in calls and calls["dynamic-seed0"] == WHOLE
    assert calls["start-seed0"] == [*WHOLE, "masks"]
    command.run()
    assert command.calls() == {"imp-fr-seed0": [*WHOLE, "masks"], "fixed-seed0": WHOLE}
    command.run()
    assert command.calls() == {}


def test_a_seed_is_done_before_the_next(command):
    """As far as what is needed allows."""
    command.write(grid=[{"methods": ["imp2"], "seeds": [0, 1]}])
    command.run()
    order = [
        (command.cell(name) / "progress.json").stat().st_mtime_ns
        for seed in (0, 1)
        for name in [f"start-seed{seed}", f"imp-cy-seed{seed}", f"imp2-cy-seed{seed}"]
    ]
    assert order == sorted(order)


def test_what_another_one_needs_later(command):
    """Takes no new training."""
    command.run()
    command.calls()
    command.write(grid=[{"methods": ["fixed", "dynamic", "imp2"], "seeds": [0]}])
    command.run()
    assert command.calls() == {f"imp2-{one}-seed0": WHOLE for one in LANGUAGES}
    more = {**TRAININGS, "later": {"start": "start", "masks": "start", "sparsity": 0.8}}
    command.write(trainings=more, grid=[{"methods": ["later"], "seeds": [0]}])
    command.run()
    assert command.calls() == {"start-seed0": ["masks"], "later-seed0": WHOLE}


def test_another_beginning_is_refused(command):
    command.run()
    command.calls()
    shutil.rmtree(command.cell("imp-fr-seed0"))
    command.run()
    assert set(command.calls()) == {"imp-fr-seed0"}
    said = command.run(code=1)
    assert command.calls() == {} and "made with other options: the model of imp-fr-seed0 (" in said
    shutil.rmtree(command.cell("fixed-seed0"))
    command.run()
    assert set(command.calls()) == {"fixed-seed0"}


def test_records_are_trusted_where_nobody_needs_the_files(command):
    command.run()
    command.calls()
    shutil.rmtree(command.folder / "exp")
    command.run("--trust-results", "true")
    assert command.calls() == {}
    command.write(grid=[{"methods": ["fixed", "dynamic", "imp2"], "seeds": [0]}])
    command.run("--trust-results", "true")
    needed = {
        "start-seed0",
        *(f"{way}-{one}-seed0" for way in ("imp", "imp2") for one in LANGUAGES),
    }
    assert set(command.calls()) == needed


def test_real_trainings(tmp_path, tiny_corpus, monkeypatch):
    """Everything but the processes, on the tiny corpus as if it were of three languages."""
    monkeypatch.setattr(compare, "Children", InProcess)
    monkeypatch.setattr(compare, "ThreadPoolExecutor", OneThread)
    folder = tmp_path / "valid"
    folder.mkdir()
    claims = [{"claim": "cheap", "kind": "cost", "method": "dynamic", "than": ["fixed"], "by": 0.6}]
    values = values_of(tmp_path, in_languages(tiny_corpus, folder), claims=claims)
    values["overrides"] += [
        "training.epochs=1", "training.checkpoint_interval=1000", "data.max_duration=4",
        "weight_pruning.schedule.initial=0.5", "weight_pruning.schedule.refresh_interval=2",
        "data.num_workers=0",
    ]  # fmt: skip
    OmegaConf.save(values, tmp_path / "compare.yaml")
    assert cli.main(["compare", str(tmp_path / "compare.yaml")]) == 0
    records = {(r["method"], r["language"]): r for r in read_json(values["results"])}
    assert list(records) == [
        (method, language)
        for method in ("start", "imp", "fixed", "dynamic")
        for language in LANGUAGES
    ]
    for (method, language), record in records.items():
        assert sum(wrong for wrong, _ in record["speakers"].values()) == record["errors"]
        expected = {"start": 1.0, "imp": 0.5, "fixed": 0.3, "dynamic": 0.3}[method]
        assert record["density"] == pytest.approx(
            expected, abs=0.02 if method != "dynamic" else 0.2
        )
        assert record["union_density"] >= record["density"]
        assert record["set"] == f"dev-{language}" and record["hours"] > 0
    corpus = records["start", "en"]["corpus_hours"]
    assert records["start", "en"]["hours"] == pytest.approx(corpus, rel=0.01)
    one_each = sum(records["imp", language]["hours"] for language in LANGUAGES)
    assert one_each == pytest.approx(corpus, rel=0.35)
    fixed = records["fixed", "cy"]
    assert set(fixed["overlaps"]) == {"en-fr", "en-cy", "fr-cy"}
    assert set(fixed["lineage"]) == {"start-seed0", *(f"imp-{one}-seed0" for one in LANGUAGES)}
    results = {path.name for path in (tmp_path / "results").iterdir()}
    assert results == {"pathways.json", "pathways-wer.png"}
    part = written_part(load_study(tmp_path / "compare.yaml").options)
    assert "| cheap | **holds** | 0." in part and "| imp | 3 | 1 |" in part
