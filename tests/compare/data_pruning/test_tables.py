"""Tables and plots of a comparison of data are made of its records."""

import pytest

from asrprune.compare.data_pruning.plots import PLOTS
from asrprune.compare.drawing import plot_path
from asrprune.compare.report import markdown
from asrprune.compare.verb import _aligned


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
    assert costs[9:] == ["2.00x", "2.00x", "2.00x", "1.00", "30 %", "10 % / 0 %", *["–"] * 3]
    assert row(text, "as good")[1] == "**contradicted**"
    assert row(text, "faster")[1] == "**holds**"
    assert row(text, "full", "1", "3")[7:9] == ["–", "–"]


def test_what_does_not_shrink(done):
    study, cells, records = done
    more = {"padding": 0.12, "loading_seconds": 3.0, "epoch_seconds": 60.0, "seconds": 64.0}
    text = markdown(study, cells, [{**record, **more} for record in records])
    assert row(text, "easy", "0.5", "4")[-3:] == ["12 %", "5 %", "4"]


def test_a_small_table_for_the_terminal(done):
    study, cells, records = done
    head, *lines = study.short(cells, records)
    assert [line[:2] for line in lines] == [
        ("full", "1"), ("full_compressed", "1 for 3 epochs"), ("easy", "0.5"),
    ]  # fmt: skip
    assert dict(zip(head, lines[2], strict=True))["audio saved"] == "50 %"
    text = _aligned([head, *lines])
    assert [line.split()[0] for line in text.splitlines()] == [
        "method", "full", "full_compressed", "easy",
    ]  # fmt: skip
    assert (
        len(
            {
                line.index(cells[1])
                for line, cells in zip(text.splitlines(), [head, *lines], strict=True)
            }
        )
        == 1
    )
    assert _aligned([]) == ""


def test_plots(done):
    study, _, records = done
    study.draw(records)
    paths = [plot_path(study.options.results, plot) for plot in PLOTS]
    before = [path.read_bytes() for path in paths]
    assert all(content.startswith(b"\x89PNG") for content in before)
    study.draw(records)
    assert [path.read_bytes() for path in paths] == before
