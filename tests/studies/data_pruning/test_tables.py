"""Tables and plots of a comparison of data are made of its records."""

import pytest

from asrprune.studies.data_pruning.plots import PLOTS
from asrprune.studies.drawing import plot_path
from asrprune.studies.report import markdown


def row(text, *start):
    [line] = [line for line in text.splitlines() if line.startswith("| " + " | ".join(start))]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_tables(done):
    study, cells, records = done
    text = markdown(study, cells, records)
    assert text.startswith("**Synthetic speech.** 9 trainings on Linux, 2 cores; python 3.11")
    assert "**3 of 12 cells are missing**: random-0.5-seed0, random-0.5-seed1" in text
    errors = row(text, "easy", "0.5", "3")
    assert float(errors[7].split()[0]) == pytest.approx(2, abs=0.05)
    assert errors[8] == "–" and float(errors[9].split()[0]) == pytest.approx(1, abs=0.05)
    costs = row(text, "easy", "0.5", "4")
    assert costs[3:5] == ["10.00", "50 %"]
    assert costs[9:] == ["2.00x", "2.00x", "2.00x", "1.00", "30 %", "10 % / 0 %"]
    assert row(text, "as good")[1] == "**contradicted**"
    assert row(text, "faster")[1] == "**holds**"
    assert row(text, "full", "1", "3")[7:9] == ["–", "–"]


def test_plots(done):
    study, _, records = done
    study.draw(records)
    paths = [plot_path(study.options.results, plot) for plot in PLOTS]
    before = [path.read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") for content in before)
    study.draw(records)
    assert [path.read_bytes() for path in paths] == before
