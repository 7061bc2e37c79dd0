"""Times of the int8 encoder: graphs cut to any width, estimates that add up, and their file."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json
from asrprune.export import milliseconds
from asrprune.export.budget import MILLISECONDS, Measure
from asrprune.export.int8_encoder import int8_encoder
from asrprune.export.milliseconds import (
    Estimate,
    Times,
    known_times,
    measure_times,
    time_file,
    time_networks,
)
from asrprune.export.network import network
from asrprune.export.onnx_graph import quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.export.source import open_source
from tests.export.test_network import WORDS, layers_of, source_of

pytest.importorskip("onnxscript")


def by_size(graphs):
    """A made-up time of a graph: a millisecond for each 10 kB of its weights."""
    return [
        sum(np.prod(one.dims) for one in graph.graph.initializer if "quantized" in one.name) / 1e4
        for graph, _ in graphs
    ]


@pytest.mark.parametrize("encoder", ["conformer:conformer", "emformer:emformer"])
def test_a_cut_graph_is_the_exported_smaller_network(encoder):
    """Its weights have the same shapes, and it computes nearly the same."""
    import onnxruntime

    source = source_of(encoder)
    names = [group.name for group in source.bank.groups]
    choice = {name: (0.25, 0.75)[place % 2] for place, name in enumerate(names)}
    known = int8_encoder(source.model, source.bank)
    smaller = known.without(source.bank.blocks(choice))
    with network(source, choice) as model:
        part = cut(model)["encoder"]
        wanted = quantised(to_onnx(part), part.metadata)

    def shapes(graph):
        return sorted((tuple(one.dims), one.data_type) for one in graph.graph.initializer)

    assert shapes(smaller) == shapes(wanted) != shapes(known.graph)
    found, expected = (
        onnxruntime.InferenceSession(graph.SerializeToString()).run(None, dict(known.inputs))[0]
        for graph in (smaller, wanted)
    )
    assert found.shape == expected.shape and found.shape[0] == 1
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert known.streaming == ("emformer" in encoder)


def test_equal_biases_are_cut_too():
    """The exporter makes one of them; an untrained model has such biases."""
    source = source_of("conformer:conformer")
    with torch.no_grad():
        for parameter in source.model.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
    small = int8_encoder(source.model, source.bank).without(source.bank.blocks(0.5))
    biases = [one for one in small.graph.initializer if one.name.endswith("sequential.1.bias")]
    assert [list(one.dims) for one in biases] == [[24]] * 4


def estimate_of(milliseconds_, work=None):
    bank = source_of("conformer:conformer").bank
    sparsities = [0.0, 0.25, 0.5, 0.75][: len(milliseconds_)]
    work = work or {group.name: 1.0 for group in bank.groups}
    return Estimate(Times(sparsities, milliseconds_, False), bank, work), bank


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(0.1, 9), min_size=2, max_size=4), st.integers(0, 99))
def test_an_estimate_of_what_was_measured_is_the_measurement(times, seed):
    """But for noise that would make a smaller network slower; any network is between the ends."""
    estimate, bank = estimate_of(times)
    least = np.minimum.accumulate(times)
    for sparsity, took in zip((0.0, 0.25, 0.5, 0.75), least, strict=False):
        assert estimate.of(bank.blocks(sparsity)) == pytest.approx(took)
    random = np.random.default_rng(seed)
    for _ in range(5):
        choice = {group.name: random.uniform(0, 0.9) for group in bank.groups}
        sparser = {name: min(0.95, value + 0.2) for name, value in choice.items()}
        took, less = (estimate.of(bank.blocks(one)) for one in (choice, sparser))
        assert least[-1] - 1e-9 <= less <= took + 1e-9 <= times[0] + 2e-9


def test_what_is_saved_is_divided_by_the_work():
    names = [group.name for group in source_of("conformer:conformer").bank.groups]
    estimate, bank = estimate_of(
        [9.0, 8.0, 7.0], dict(zip(names, (1.0, 1.0, 3.0, 5.0), strict=True))
    )
    for name, share in zip(names, (0.1, 0.1, 0.3, 0.5), strict=True):
        alone = {**dict.fromkeys(names, 0.0), name: 0.5}
        assert estimate.of(bank.blocks(alone)) == pytest.approx(9 - 2 * share)


def test_the_cost_of_many_is_that_of_each():
    source = source_of("emformer:emformer")
    times = Times([0.0, 0.5, 0.75], [3.0, 2.0, 1.9], True)
    measure = Measure(source.model, source.bank, MILLISECONDS, times)
    names = [group.name for group in source.bank.groups]
    choices = [0.0, 0.1, 0.5, 0.7]
    rows = np.random.default_rng(0).choice(choices, (20, len(names)))
    each = [measure.of(dict(zip(names, row, strict=True))) for row in rows]
    assert measure.cost(choices)(rows).tolist() == pytest.approx(each, rel=1e-12)
    assert measure.within(2.0, 0.75) == pytest.approx(0.5, abs=0.05)
    assert measure.within(5.0, 0.75) == 0
    with pytest.raises(UserError, match=r"--budget: 1.5 ms .* 1.900 ms at .* network has 3.000 ms"):
        measure.within(1.5, 0.75)


def test_really_smaller_is_really_faster():
    """Where feed-forward modules are nearly all there is."""
    source = source_of("emformer:emformer, as published", dim=64, ffn_dim=16384)
    dense, half, tenth = time_networks(source.model, source.bank, [0.0, 0.5, 0.9])
    assert tenth < 0.6 * dense and tenth < half < dense
    times = measure_times(source.model, source.bank, 0.9)
    assert times.sparsities == [0.0, 0.224, 0.448, 0.676, 0.9] and times.streaming
    names = [group.name for group in source.bank.groups]
    mixed = {name: (0.2, 0.8)[place % 2] for place, name in enumerate(names)}
    measure = Measure(source.model, source.bank, MILLISECONDS, times)
    [took] = time_networks(source.model, source.bank, [mixed])
    assert measure.of(mixed) == pytest.approx(took, rel=0.25)


def test_fewer_layers_are_faster():
    source = layers_of("emformer:emformer", dim=64, ffn_dim=512, num_layers=3)
    dense, least = time_networks(source.model, source.bank, [0.0, 0.9])
    assert least < 0.7 * dense


def test_times_are_measured_once(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(milliseconds, "time_graphs", lambda *_: calls.append(0) or by_size(*_))
    source, path = source_of("conformer:conformer"), tmp_path / "new" / "times.json"
    first, again = (known_times(path, source.model, source.bank, 0.8, "digest") for _ in "ab")
    assert first == again and len(calls) == 1
    assert len(first.milliseconds) == 5 and first.milliseconds[-1] < first.milliseconds[0]
    content = read_json(path)
    for key, value, message in (
        ("model", "other", "times of another model"),
        ("machine", {"host": "other"}, "times of another machine"),
        ("sparsest", 0.9, "times of another sparsest"),
        ("times", {}, "is damaged"),
    ):
        write_json(path, {**content, key: value})
        with pytest.raises(UserError, match=f"times.json.* {message}.*Delete it"):
            known_times(path, source.model, source.bank, 0.8, "digest")


def test_blocks_take_as_long_as_the_dense_network(models, tmp_path, capsys):
    words = ["--model", str(models["supernet"]), "--output", str(tmp_path / "small.pt")]
    assert cli.main(["extract", *words, "--budget", "1.2ms"]) == 1
    error = capsys.readouterr().err
    assert (
        "milliseconds needs weight_pruning.unit=channel, layer or head: a runtime loads and"
        in error
    )
    assert not list(tmp_path.iterdir())


def test_a_network_of_a_time_is_extracted_and_exported(
    models, tmp_path, tiny_corpus, monkeypatch, caplog
):
    monkeypatch.setattr(milliseconds, "time_graphs", by_size)
    caplog.set_level("INFO")
    source = open_source(models["none"], WORDS)
    times = measure_times(source.model, source.bank, source.sparsest)
    measure = Measure(source.model, source.bank, MILLISECONDS, times)
    budget = f"{measure.of(0.5):.6f}ms"
    words = ["--model", str(models["none"]), "--budget", budget, *WORDS]
    assert cli.main(["extract", *words, "--output", str(tmp_path / "small.pt")]) == 0
    choice = read_json(tmp_path / "small.json")["sparsities"]
    assert measure.of(choice) <= float(budget[:-2]) < measure.of(choice - 0.1)
    folder = tmp_path / "onnx"
    words = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", folder]
    words = ["export", *map(str, words), *WORDS, "--networks", budget]
    assert cli.main(words) == 0
    assert read_json(folder / "export.json")["networks"][budget]["choice"] == choice
    took = time_file(folder / budget / "encoder.int8.onnx", source.model)
    assert took == pytest.approx(measure.of(choice), abs=1e-6)
    assert f"the int8 encoder takes {took:.3f} ms, measured" in caplog.text
    assert cli.main([*words, "--int8", "false"]) == 1


def test_a_stream_of_a_time_has_fewer_layers(streaming, tmp_path, monkeypatch):
    """What is timed after the export has other states than the dense network."""
    monkeypatch.setattr(milliseconds, "MEASURED", 1)
    word = "weight_pruning.unit=layer"
    source = open_source(streaming.model, [word])
    dense, *_, least = measure_times(source.model, source.bank, source.sparsest).milliseconds
    budget = f"{(dense + least) / 2:.6f}ms"
    words = ["--model", streaming.model, "--lang-dir", streaming.corpus.lang, "--out-dir", tmp_path]
    assert cli.main(["export", *map(str, words), word, "--networks", budget]) == 0
    assert read_json(tmp_path / "export.json")["networks"][budget]["choice"] > 0
