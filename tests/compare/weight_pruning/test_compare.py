"""A comparison of sparse models from end to end."""

import importlib.util
import shutil

import pytest
from omegaconf import OmegaConf

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.compare import verb as compare
from asrprune.compare.kinds import load_study
from asrprune.compare.weight_pruning.grid import TABLES
from tests.compare.command import Command, InProcess, OneThread, written_part
from tests.compare.conftest import FakeCorpus
from tests.compare.weight_pruning.networks import values_of

NETWORK = ["extract", "decode", "score", "export"]


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """The comparison of `networks`, with stand-ins for the verbs."""
    values = values_of(tmp_path, FakeCorpus(tmp_path))
    return Command(tmp_path, values, monkeypatch, capsys)


def test_a_new_sparsity_takes_no_new_training_of_what_has_them_all(command):
    command.run("--jobs", "2")
    calls = command.calls()
    assert calls["dense-seed0"] == calls["gradual-0.5-seed0"] == ["train", "average"]
    assert calls["supernet-seed0"] == ["train", "average", *3 * ["search"]]
    assert calls["supernet-seed0/searched-0.5"] == NETWORK and len(calls) == 4 + 3 + 2 + 5
    first = command.records()
    command.run()
    assert command.calls() == {} and command.records() == first
    command.write(sparsities=[0.0, 0.5, 0.7, 0.8])
    command.run("--jobs", "2")
    assert command.calls() == {
        "dense-seed0/one_shot-0.7": NETWORK,
        "gradual-0.7-seed0": ["train", "average"],
        "gradual-0.7-seed0/gradual-0.7": NETWORK,
        "supernet-seed0/supernet-0.7": NETWORK,
    }
    found = [(record["method"], record["sparsity"]) for record in command.records()]
    assert len(found) == len(first) + 3 and found[2] == ("one_shot", 0.7)
    command.write(sparsities=[0.0, 0.5], searched=[])
    command.run()
    assert command.calls() == {} and len(command.records()) == 5


def test_a_failed_network(command):
    said = command.run(code=1, FAKE_FAIL="decode supernet-0.5")
    assert "supernet-seed0 failed: decode ended with status 3" in said
    command.calls()
    command.run()
    calls = command.calls()
    assert calls.pop("supernet-seed0/supernet-0.5") == NETWORK[1:]
    assert set(calls) == {f"supernet-seed0/{name}-{level}" for name, level in (
        ("supernet", 0.8), ("searched", 0.5), ("random_search", 0.5))}  # fmt: skip


def test_networks_are_run_in_sherpa_without_a_new_training(command):
    command.run("--jobs", "2")
    command.calls()
    command.write(runtime=["supernet"])
    command.run()
    networks = [f"supernet-seed0/supernet-{level}" for level in (0, 0.5, 0.8)]
    assert command.calls() == {network: ["bench"] for network in networks}
    # records without the runs are not taken for those that have them, and the other way round
    command.run("--trust-results", "true")
    shutil.rmtree(command.folder / "exp")
    command.write(runtime=["supernet", "gradual"])
    command.run("--trust-results", "true")
    again = command.calls()
    assert "gradual-0.5-seed0" in again and "supernet-seed0" not in again
    for method, message in (("supernett", "unknown"), ("small", "no part of the grid")):
        command.write(runtime=[method])
        assert f"runtime: {message}" in command.run(code=1)


def test_another_search_takes_no_new_training(command):
    command.run("--jobs", "2")
    command.calls()
    found = {f"supernet-seed0/{name}-0.5": NETWORK for name in ("searched", "random_search")}
    search = {**command.values["search"], "generations": 3}
    command.write(search=search)
    # stopped once the searches are done: what they found before is not taken for it
    command.run(code=1, FAKE_FAIL="extract searched-0.5")
    assert len(command.calls()["supernet-seed0"]) == 3
    command.run()
    assert command.calls() == found
    assert command.records()[-1]["search"]["generations"] == 3
    command.write(search={**search, "sample_wer": 5})
    command.run()
    assert command.calls() == {"supernet-seed0": ["search"]}
    assert command.records()[-2]["search"]["sample_of_each"] == 5
    command.write(searched=[0.5, 0.8])
    command.run()
    more = {name.replace("0.5", "0.8"): verbs for name, verbs in found.items()}
    assert command.calls() == {"supernet-seed0": 3 * ["search"], **found, **more}


@pytest.mark.parametrize("unit", ["channel", "block"])
def test_real_trainings(unit, tmp_path, tiny_corpus, monkeypatch):
    """Everything but the processes, on the tiny corpus."""
    pytest.importorskip("onnx")
    monkeypatch.setattr(compare, "Children", InProcess)
    monkeypatch.setattr(compare, "ThreadPoolExecutor", OneThread)
    claims = [{"claim": "cheap", "kind": "cost", "method": "supernet", "measure": "passes"}]
    ways = {"channel": ["small", "supernet"], "block": ["gradual", "supernet"]}[unit]
    runs = unit == "channel" and importlib.util.find_spec("sherpa_onnx")
    values = values_of(
        tmp_path, tiny_corpus, claims=claims, sparsities=[0.0, 0.5],
        methods={}, search={"dev_set": "dev", "population": 10, "generations": 1, "sample_wer": 3},
        grid=[{"methods": ways, "seeds": [0]}], runtime=["small"] if runs else [],
        overrides=["training.epochs=2", "training.checkpoint_interval=1000",
               f"weight_pruning.unit={unit}",
               "weight_pruning.schedule.final=0.8", "weight_pruning.schedule.refresh_interval=5"],
    )  # fmt: skip
    OmegaConf.save(values, tmp_path / "compare.yaml")
    assert cli.main(["compare", str(tmp_path / "compare.yaml")]) == 0
    records = {(r["method"], r["sparsity"]): r for r in read_json(values["results"])}
    assert list(records) == [
        ("one_shot", 0.0), ("one_shot", 0.5), (ways[0], 0.5), ("supernet", 0.0),
        ("supernet", 0.5), ("searched", 0.5), ("random_search", 0.5),
    ]  # fmt: skip
    dense, searched = records["one_shot", 0.0], records["searched", 0.5]
    for (method, sparsity), record in records.items():
        assert record["steps"] == dense["steps"] > 0 and record["hours"] == dense["hours"]
        assert sum(wrong for wrong, _ in record["speakers"].values()) == record["errors"]
        assert record["words"] == dense["words"] and record["data"] == dense["data"]
        files = tmp_path / "exp" / record["training"] / f"{method}-{sparsity:g}" / "onnx/whole"
        int8 = ("encoder.int8.onnx", "decoder.onnx", "joiner.int8.onnx")
        assert record["bytes"] == sum((files / name).stat().st_size for name in int8)
        if unit == "block":  # a runtime loads the masked ones too
            assert record["bytes"] == dense["bytes"]
        elif sparsity:
            assert record["bytes"] < dense["bytes"]
        assert (record["runtime"] is not None) == bool(runs and method == "small")
        if record["runtime"]:
            assert list(record["runtime"]) == ["float32", "int8"]
            for found in record["runtime"].values():
                assert found["words"] == record["words"] and found["milliseconds"] > 0
                assert sum(wrong for wrong, _ in found["speakers"].values()) == found["errors"]
        if method not in ("searched", "random_search"):
            assert record["search"] is None
            assert abs(record["bytes"] - records["supernet", sparsity]["bytes"]) < 64
            if method != "small":  # which is dense itself
                assert record["density"] == pytest.approx(1 - sparsity, abs=0.02)
                assert record["dense_parameters"] == dense["parameters"] >= record["parameters"]
    for method, table in TABLES.items():
        record = records[method, 0.5]
        pareto = read_json(tmp_path / "exp/supernet-seed0" / table)
        assert record["bytes"] <= records["supernet", 0.5]["bytes"] + 64
        losses = [one["fitness"] for one in pareto["budgets"][0]["candidates"]]
        assert min(losses) <= record["search"]["uniform_loss"]
        assert record["search"]["loss"] in losses
        # fewer where so few widths leave nothing new to try
        assert 10 < record["search"]["evaluations"] <= 20
        assert record["search"]["evaluation_seconds"] > 0
        assert record["training"] == records["supernet", 0.0]["training"] == "supernet-seed0"
    sample = read_json(tmp_path / "exp/supernet-seed0/sample.json")
    told = sample["wer"]["budgets"][0]["rank_correlation"]
    assert searched["search"]["rank_correlation"] == told and "--search" in searched["extract"]
    results = {path.name for path in (tmp_path / "results").iterdir()}
    assert results == {"omni.json", "omni-size.png", *(["omni-time.png"] if runs else [])}
    part = written_part(load_study(tmp_path / "compare.yaml").options)
    assert "| cheap | **inconclusive** | 1.000x (1 seed) |" in part
