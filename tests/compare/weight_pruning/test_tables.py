"""Tables and the plot of a comparison of sparse models are made of its records."""

import pytest

from asrprune.compare.drawing import plot_path
from asrprune.compare.report import markdown, read_records, save_records
from asrprune.compare.weight_pruning.plots import SIZE
from tests.compare.example_records import stamped
from tests.compare.weight_pruning.networks import SEEDS, network_records, whole_comparison


@pytest.fixture
def done(study):
    """A comparison, its cells, and its records."""
    claims = [
        {"claim": "cheap", "kind": "cost", "method": "supernet", "by": 1.1},
        {"claim": "as good", "method": "supernet", "than": ["gradual"], "at": [0.5, 0.8]},
        {"claim": "worth it", "kind": "better", "method": "searched", "than": ["supernet"],
         "at": [0.5]},
    ]  # fmt: skip
    grid = [{"methods": ["gradual", "supernet"], "seeds": SEEDS}]
    whole = study(claims=claims, grid=grid, synthetic=True)
    cells = whole.cells()
    return whole, cells, stamped(whole, cells, whole_comparison())


def rows(text, start):
    """The cells of all rows that start so."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_networks_in_sherpa(study, tmp_path):
    """The table has the networks that were run. The dense model is there once."""
    options = {"grid": [{"methods": ["gradual", "supernet"], "seeds": SEEDS}], "searched": []}
    whole = study(**options, runtime=["one_shot", "supernet"])
    cells, records = whole.cells(), []
    for record in stamped(
        whole, whole.cells(), [r for r in whole_comparison() if r["search"] is None]
    ):
        run = None
        if record["method"] in ("one_shot", "supernet"):
            worse = {
                name: [wrong + 1, words] for name, (wrong, words) in record["speakers"].items()
            }
            errors = sum(wrong for wrong, _ in worse.values())
            time = 2.0 - record["sparsity"] + 0.1 * record["seed"]
            run = {
                "float32": {**record, "milliseconds": 2 * time, "per": "chunk"},
                "int8": {
                    **record, "speakers": worse, "errors": errors, "milliseconds": time,
                    "per": "chunk",
                },
            }  # fmt: skip
        records.append({**record, "runtime": run})
    text = markdown(whole, cells, records)
    lines = text[text.index("| in sherpa-onnx |") :].split("\n\n")[0].splitlines()[2:]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[:3] for line in found] == [
        [method, sparsity, "3"]
        for method in ("one_shot", "supernet")
        for sparsity in ("0", "0.5", "0.8")
    ]
    for method, sparsity, _, float32, int8, more, size, *times in found:
        [row] = [r for r in records if (r["method"], f"{r['sparsity']:g}") == (method, sparsity)
                 and r["seed"] == 0]  # fmt: skip
        share = 100 * len(row["speakers"]) / row["words"]
        assert float(int8) - float(float32) == pytest.approx(share, abs=0.011)
        assert float(more.split()[0]) == pytest.approx(share, abs=0.006)
        assert size == f"{row['bytes'] / 1e6:.2f}"
        assert times == [f"{2 * (2.1 - float(sparsity)):.2f}", f"{2.1 - float(sparsity):.2f}"]
    assert "WER in int8 against time" in text
    whole.draw(records)
    assert plot_path(whole.options.results, "time").is_file()
    without = [{**record, "runtime": None} for record in records]
    text = markdown(study(**options), cells, without)
    assert "sherpa-onnx" not in text and "against time" not in text


def test_tables(done):
    study, cells, records = done
    text = markdown(study, cells, records)
    assert text.startswith("**Synthetic speech.** 12 trainings on Linux, 2 cores; python 3.11")
    errors, differences, costs = rows(text, "supernet")
    assert [float(cell.split()[0]) for cell in errors[2:]] == pytest.approx(
        [10.1, 10.6, 15], abs=0.1
    )
    assert [float(cell.split()[0]) for cell in differences[2:]] == pytest.approx(
        [0.1, 0.1, 3], abs=0.1
    )
    assert costs[1:8] == ["3", "1", "1000", "106", "96", "–", "–"]
    assert costs[8:] == ["1.05x", "1.05x", "0.33x", "0.33x"]
    gradual, costs = rows(text, "gradual")
    [dense, *_] = rows(text, "one_shot")
    assert gradual[2] == dense[2]  # at sparsity 0
    assert costs[2:5] == ["3", "3000", "323"] and costs[10:] == ["1.00x", "1.00x"]
    searched, _, costs, loss = rows(text, "searched")
    assert searched[2] == searched[4] == "–"
    assert costs[6:10] == ["36", "20", "1.25x", "–"] and loss[3] == "0.2000 (0.2500)"
    sizes = [cell.split()[-1] for cell in rows(text, "supernet")[0][2:]]
    assert sizes == ["(5.00)", "(3.00)", "(1.80)"]  # MB
    assert "means over seeds: 0.90 at 0.5; 0.90 on average. For each size, up to 4 " in text
    assert "sub-networks of nearly the same size are compared: at most 5 % smaller than" in text
    verdicts = {name: rows(text, name)[0][1] for name in ("cheap", "as good", "worth it")}
    assert verdicts == {
        "cheap": "**holds**", "as good": "**contradicted**", "worth it": "**holds**",
    }  # fmt: skip


def test_what_is_missing(done):
    study, cells, records = done
    few = stamped(study, cells, network_records("one_shot", 0.5, seeds=1))
    text = markdown(study, cells, [r for r in records if r["training"] != "supernet-seed2"])
    assert "**1 of 12 cells are missing**: supernet-seed2." in text
    assert rows(text, "supernet")[0][1] == "2"
    text = markdown(study, cells, few)
    assert rows(text, "one_shot")[0][1:3] == ["1", rows(text, "one_shot")[0][2]]
    assert "Differences" not in text and "Rank correlation" not in text
    assert markdown(study, cells, []) == "Nothing has been run.\n"


def test_records_of_the_grid_are_kept_in_its_order(done):
    study, cells, records = done
    strange = network_records("one_shot", 0.3)
    found = save_records(study, cells, [*records[::-1], *strange])
    assert found == read_records(study.options)
    assert sorted(found, key=str) == sorted(records, key=str)
    assert [r["method"] for r in found[:9]] == [
        *3 * ["one_shot"], *2 * ["gradual"], *3 * ["supernet"], "searched",
    ]  # fmt: skip
    assert [r["seed"] for r in found] == sorted(r["seed"] for r in records)


def test_plots(done):
    study, _, records = done
    study.draw(records)
    path = plot_path(study.options.results, SIZE)
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")
    study.draw(records)
    assert path.read_bytes() == before
