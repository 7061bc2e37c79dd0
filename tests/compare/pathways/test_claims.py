"""Verdicts and tables on records whose truth is known."""

import pytest

from asrprune.compare.kinds import study_from
from asrprune.compare.pathways.claims import judge
from asrprune.compare.pathways.options import ALL, ClaimOptions
from asrprune.compare.pathways.summary import Summary
from asrprune.compare.report import markdown
from tests.compare.conftest import FakeCorpus
from tests.compare.example_records import stamped
from tests.compare.pathways.comparison import language_records, values_of
from tests.languages import LANGUAGES

GRID = [{"methods": ["dense", "lap", "imp2", "fixed", "dynamic"], "seeds": [0, 1, 2]}]


@pytest.fixture
def study(tmp_path):
    return study_from(values_of(tmp_path, FakeCorpus(tmp_path), grid=GRID))


@pytest.fixture
def verdict(study):
    def judged(worse, *, margin=0.05, seeds=3, spread=0.0005, **claim):
        records = language_records(study, worse, seeds=seeds, spread=spread)
        options = ClaimOptions(claim="it is so", **claim)
        return judge(options, Summary(study.cells(), records), margin)

    return judged


@pytest.mark.parametrize(
    "worse, expected",
    [
        ({"cy": 0.01}, "holds"),  # one of three is hurt
        ({"en": -0.01, "fr": 0.0001}, "contradicted"),
        ({"fr": 0.006}, "holds"),
    ],
)
def test_worse_somewhere(worse, expected, verdict):
    claim = {"kind": "worse_somewhere", "method": "lap", "than": ["dense"], "at": list(LANGUAGES)}
    found = verdict({"lap": worse}, **claim)
    assert found.verdict == expected, found
    assert all(f"dense in {language}" in found.found for language in LANGUAGES)
    few = verdict({"lap": worse}, seeds=2, **claim)
    assert few.verdict == "inconclusive" and "(2 seeds only)" in few.found


def test_languages_that_scatter_show_nothing(verdict):
    claim = {"kind": "worse_somewhere", "method": "lap", "than": ["dense"], "at": list(LANGUAGES)}
    assert verdict({"lap": {"cy": 0.01}}, spread=0.1, **claim).verdict == "inconclusive"


@pytest.mark.parametrize(
    "worse, kind, expected",
    [
        ({"en": -0.01, "fr": -0.02, "cy": 0.003}, "better", "holds"),  # all together
        ({"en": 0.01, "fr": 0.02, "cy": -0.003}, "better", "contradicted"),
        ({"en": 0.001, "fr": 0.001, "cy": 0.001}, "no_worse", "holds"),
        ({"en": 0.0, "fr": 0.06, "cy": 0.0}, "no_worse", "contradicted"),
    ],
)
def test_all_languages_together(worse, kind, expected, verdict):
    found = verdict({"dynamic": worse}, kind=kind, method="dynamic", than=["fixed"], at=[ALL])
    assert found.verdict == expected, found


def test_cost_is_of_all_that_a_training_begins_with(study, verdict):
    """6 hours each; fixed pathways take iterative pruning before, of 2 hours for each language."""
    claim = {"kind": "cost", "method": "dynamic", "than": ["fixed"]}
    found = verdict({}, by=0.5, **claim)
    assert found.verdict == "holds" and found.found == "0.50x of fixed"
    assert verdict({}, by=0.49, **claim).verdict == "contradicted"
    summary = Summary(study.cells(), language_records(study, {}))
    assert summary.hours("imp2") == dict.fromkeys((0, 1, 2), 12.0)
    assert summary.hours("imp2", with_sources=False) == dict.fromkeys((0, 1, 2), 6.0)
    assert summary.models("imp2") == 3 and summary.models("fixed") == 1
    records = [r for r in language_records(study, {}) if r["training"] != "imp-fr-seed1"]
    summary = Summary(study.cells(), records)
    assert set(summary.hours("fixed")) == {0, 2}
    assert set(summary.rows["imp", ALL].records) == {0, 2}


def test_what_was_not_run_is_said(study):
    options = ClaimOptions(claim="x", kind="better", method="dynamic", than=["fixed"])
    records = [r for r in language_records(study, {}) if r["method"] != "fixed"]
    assert judge(options, Summary(study.cells(), records), 0.05).found == "not run"


def test_the_report(tmp_path):
    claims = [
        {"claim": "lap hurts", "kind": "worse_somewhere", "method": "lap", "than": ["dense"],
         "at": list(LANGUAGES)},
    ]  # fmt: skip
    values = values_of(tmp_path, FakeCorpus(tmp_path), grid=GRID, claims=claims, synthetic=True)
    study = study_from(values)
    records = language_records(study, {"lap": {"cy": 0.01}})
    records = stamped(study, study.cells(), records)
    text = markdown(study, study.cells(), records)
    assert "| lap | 3 | " in text and "| lap hurts | **holds** |" in text
    assert "Differences from *dense*" in text and "| − dense | seeds | en | fr | cy | all |" in text
    assert "| fixed | 1 | 3 | 0.300 | 0.400 | 0.600 | 3.0 | 6.0 |" in text
    assert "| imp2 | 3 | 3 | 0.300 | – | – | 3.0 | 6.0 |" in text
    study.draw(records)
    first = (tmp_path / "results" / "pathways-wer.png").read_bytes()
    study.draw(records)
    assert (tmp_path / "results" / "pathways-wer.png").read_bytes() == first
