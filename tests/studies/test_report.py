"""Tables and plots are made of the records, and what is committed is what they say."""

import os
from pathlib import Path

import pytest

from asrprune.errors import UserError
from asrprune.files import read_json
from asrprune.studies.grid import cells_of
from asrprune.studies.options import load_study
from asrprune.studies.plots import PLOTS, draw_plots, plot_path
from asrprune.studies.report import marks, read_records, save_records, write_report, written_part
from asrprune.studies.tables import markdown
from tests.studies.example_records import records_of

ROOT = Path(__file__).parents[2]
STUDIES = sorted(ROOT.glob("egs/*/*/conf/compare*.yaml"))


@pytest.fixture
def done(study):
    """A comparison, its cells, and the records of all but the random ones."""
    claims = [
        {"claim": "as good", "method": "easy", "keep": 0.5},
        {"claim": "faster", "kind": "faster", "method": "easy", "keep": 0.5, "by": 1.6},
    ]
    grid = [{"methods": ["easy"], "keep": [0.5], "seeds": [0, 1, 2]}]
    options = study(claims=claims, grid=grid, synthetic=True)
    records = [
        *records_of("full", 1.0, hours=20.0),
        *records_of("full_compressed", 0.5, 0.01, hours=10.0),
        *records_of("easy", 0.5, 0.02, hours=10.0, turnover=0.3, never_kept=0.1),
    ]
    return options, cells_of(options), records


def row(text, *start):
    [line] = [line for line in text.splitlines() if line.startswith("| " + " | ".join(start))]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables(done):
    text = markdown(*done)
    assert text.startswith("**Synthetic speech.** 9 trainings on Linux, 2 cores; python 3.11")
    assert "**3 of 12 cells are missing**: random-0.5-seed0, random-0.5-seed1" in text
    errors = row(text, "easy", "0.5", "3")
    assert float(errors[7].split()[0]) == pytest.approx(2, abs=0.05)
    assert errors[8] == "–" and float(errors[9].split()[0]) == pytest.approx(1, abs=0.05)
    costs = row(text, "easy", "0.5", "13")
    assert costs[3:5] == ["10.00", "50 %"]
    assert costs[9:] == ["2.00x", "2.00x", "2.00x", "1.00", "30 %", "10 % / 0 %"]
    assert row(text, "as good")[1] == "**contradicted**"
    assert row(text, "faster")[1] == "**holds**"
    assert row(text, "full", "1", "3")[7:9] == ["–", "–"]


def test_the_report_keeps_what_is_around(done):
    study, cells, records = done
    Path(study.report).write_text("# Results\n\nBefore.\n")
    write_report(study, cells, records[:3])
    text = Path(study.report).read_text()
    Path(study.report).write_text(text + "\nAfter.\n")
    write_report(study, cells, records)
    text = Path(study.report).read_text()
    assert text.startswith("# Results\n\nBefore.\n\n## Comparison\n")
    assert text.endswith("\nAfter.\n")
    assert written_part(study) == markdown(study, cells, records)
    write_report(study, cells, records)
    assert Path(study.report).read_text() == text
    Path(study.report).write_text(text.replace(marks(study)[1], ""))
    with pytest.raises(UserError, match="one is missing"):
        write_report(study, cells, records)


def test_records_are_in_the_order_of_the_grid_and_replaced(done):
    study, cells, records = done
    save_records(study, cells, records[::-1])
    strange = records_of("ucb", 0.5)
    again = {**records[4], "errors": 7}
    found = save_records(study, cells, [again, *strange])
    order = [cell.key for cell in cells]
    keys = [(record["method"], record["keep"], record["seed"]) for record in found]
    assert keys == [key for key in order if key[0] != "random"]
    assert [r["errors"] for r in found if r["method"] == again["method"]][1] == 7
    assert read_records(study) == found == read_json(study.results)


def test_plots(done):
    study, _, records = done
    draw_plots(study, records)
    paths = [plot_path(study, plot) for plot in PLOTS]
    before = [path.read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") for content in before)
    draw_plots(study, records)
    assert [path.read_bytes() for path in paths] == before


def test_nothing_has_been_run(study):
    assert markdown(study(), cells_of(study()), []).startswith("Nothing has been run.")


@pytest.mark.parametrize("path", STUDIES, ids=[str(path.relative_to(ROOT)) for path in STUDIES])
def test_what_is_committed_is_what_the_records_say(path, monkeypatch):
    monkeypatch.chdir(path.parents[1])
    study = load_study(path)
    cells = cells_of(study)
    records = read_records(study)
    if not records:
        assert written_part(study) is None
        return
    assert written_part(study) == markdown(study, cells, records)
    assert not {record["synthetic"] for record in records} ^ {study.synthetic}
    for plot in PLOTS:
        assert os.path.getsize(plot_path(study, plot))
    for record in records:
        sums = [sum(column) for column in zip(*record["speakers"].values(), strict=True)]
        assert sums == [record["errors"], record["words"]]
        kinds = ("insertions", "deletions", "substitutions")
        assert sum(record[kind] for kind in kinds) == record["errors"]
