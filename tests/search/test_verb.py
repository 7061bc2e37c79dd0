"""The search on a tiny supernet: against uniform sub-networks, its own interruptions, bad words."""

import json
import logging
import math
import shutil
from pathlib import Path

import pytest
import torch

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.config import save_config
from asrprune.data.batches import open_cuts, part_of
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.load import load_model
from asrprune.export import milliseconds
from asrprune.export.budget import MILLISECONDS, MULTIPLY_ADDS, Measure
from asrprune.export.source import open_source
from asrprune.search import dev_set
from asrprune.search.dev_set import DevSet, load_dev_set
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.train import build_trainer

BUDGETS = ("0.5", "0.8")
SMALL = ("--population", 10, "--generations", 2)


@pytest.fixture(scope="module")
def command(models, tiny_corpus):
    """Run the verb on the supernet; returns its exit status."""

    def run(folder, *words, model="supernet", budgets=BUDGETS):
        data = ("--manifest-dir", tiny_corpus.manifests, "--lang-dir", tiny_corpus.lang)
        words = ("--model", models[model], "--dev-set", "dev", "--budgets", *budgets, *words)
        words = ("search", "--exp-dir", folder, "--device", "cpu", *data, *SMALL, *words)
        return cli.main([str(word) for word in words])

    return run


@pytest.fixture(scope="module")
def first_search(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    assert command(folder, "--sample-wer", 4) == 0
    return folder


@pytest.fixture
def searched(first_search, tmp_path_factory):
    """The folder of an undisturbed search, of this test's own: a log grows with each search."""
    return shutil.copytree(first_search, tmp_path_factory.mktemp("searched"), dirs_exist_ok=True)


def record(folder):
    return json.loads((folder / "pareto.json").read_text())


def timeless(folder):
    times = ("seconds", "decoding_seconds")
    return {name: value for name, value in record(folder).items() if name not in times}


def evaluated(log: Path, bank) -> list[dict]:
    """What a log says of each sub-network, with its choice and its parameters, counted here."""
    header, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    layers = [layer.name for layer in bank.layers]
    choices = [dict(zip(layers, line["sparsity"], strict=True)) for line in lines]
    return [
        {**line, "choice": choice, "parameters": bank.kept_parameters(choice)}
        for line, choice in zip(lines, choices, strict=True)
    ]


def log_of(folder: Path) -> Path:
    [known] = [path for path in (folder / "search").iterdir() if ".wer" not in path.name]
    return known


def test_the_best_of_all_that_was_evaluated(searched, models, tiny_corpus):
    """And what the table says of a sub-network is what it is found to be."""
    found = record(searched)
    source = open_source(models["supernet"], [])
    tokenizer = load_tokenizer(tiny_corpus.lang)
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, source.model, source.config, tokenizer)
    known = evaluated(log_of(searched), source.bank)
    assert len(known) == found["evaluations"]
    assert [one["budget"] for one in found["budgets"]] == list(BUDGETS)
    for one, sparsity in zip(found["budgets"], (0.5, 0.8), strict=True):
        best, uniform = min(one["candidates"], key=lambda each: each["fitness"]), one["uniform"]
        assert one["parameters"] == source.bank.kept_parameters(sparsity) == uniform["parameters"]
        within = [each for each in known if each["parameters"] <= one["parameters"]]
        first = min(within, key=lambda each: each["fitness"])
        assert (best["fitness"], best["sparsities"]) == (first["fitness"], first["choice"])
        alike = [each for each in within if len(set(each["choice"].values())) == 1]
        assert uniform["fitness"] == min(each["fitness"] for each in alike)
        assert best["parameters"] == source.bank.kept_parameters(best["sparsities"])
        assert best["bytes"] is None  # no file of it is smaller
        for choice, fitness in ((best["sparsities"], best), (sparsity, uniform)):
            with source.bank.apply(choice):
                assert dev.loss(source.model) == fitness["fitness"]
    # 0.5 to 0.8, which are within the larger budget
    assert [one["sparsity"] for one in found["uniform"]] == pytest.approx(
        [0.5, 0.6, 0.7, 0.8], abs=0.02
    )
    assert not found["one_shot"] and found["evaluations"] > 20
    assert (searched / "pareto.png").read_bytes().startswith(b"\x89PNG")


def key(network) -> tuple[float, ...]:
    return tuple(network["sparsities"].values())


def test_the_lowest_wer_of_the_best_losses_is_chosen(searched, models, tiny_corpus):
    """Each was decoded with its own masks, and is a line of the table."""
    found = record(searched)
    source = open_source(models["supernet"], [])
    tokenizer = load_tokenizer(tiny_corpus.lang)
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, source.model, source.config, tokenizer)
    known = evaluated(log_of(searched), source.bank)
    table = (searched / "pareto.md").read_text()
    smaller = {}
    for one in reversed(found["budgets"]):  # the larger one is the first
        within = [each for each in known if each["parameters"] <= one["parameters"]]
        within.sort(key=lambda each: (each["fitness"], each["parameters"]))
        wanted = {tuple(each["choice"].values()) for each in within[:5]} | smaller.keys()
        candidates = one["candidates"]
        assert {key(each) for each in candidates} == wanted and len(candidates) == len(wanted)
        for each in candidates:
            with source.bank.apply(each["sparsities"]):
                assert dev.error_rate(source.model) == each["wer"]
            assert f" | {each['fitness']:.4f} | {100 * each['wer']:.2f} |" in table
        order = [(each["wer"], each["fitness"]) for each in candidates]
        assert order == sorted(order) and one["best"] == candidates[0]
        smaller[key(one["best"])] = one
    # the smallest budget has room for one network alone, which the larger budget considers too
    assert [len(one["candidates"]) for one in found["budgets"]] == [6, 1]


def test_a_low_wer_beats_a_low_loss(command, tmp_path, searched, monkeypatch):
    """By a made-up WER that is the lowest where the loss is the highest; with 0, loss decides."""
    monkeypatch.setattr(DevSet, "error_rate", lambda dev, model: 9 - dev.loss(model))
    known = tmp_path / "log.jsonl"
    known.write_bytes(log_of(searched).read_bytes())
    for count, place in ((3, -1), (1, 0), (0, 0)):
        output = tmp_path / f"{count}.json"
        budgets = ["0.5"]
        words = ("--log", known, "--output", output, "--rerank", count)
        assert command(tmp_path, *words, budgets=budgets) == 0
        [one] = json.loads(output.read_text())["budgets"]
        losses = sorted(each["fitness"] for each in one["candidates"])
        assert len(losses) == max(count, 1) and ("wer" in one["best"]) == bool(count)
        assert one["best"]["fitness"] == losses[place]
        assert one["history"][-1][1] == losses[0]  # the search itself knows no error rates


def test_all_that_was_searched_could_have_been_trained(searched, models, tiny_corpus):
    """Layers at most 0.4 apart, for a jitter of 0.2; or the same in all layers."""
    source = open_source(models["supernet"], [])
    assert source.config.weight_pruning.supernet.jitter == 0.2
    rows = [set(one["choice"].values()) for one in evaluated(log_of(searched), source.bank)]
    mixed = [row for row in rows if len(row) > 1]
    assert len(mixed) > 10 and all(max(row) - min(row) <= 0.4 + 1e-9 for row in mixed)
    assert any(max(row) - min(row) > 0.3 for row in mixed)


def test_the_fitness_is_the_dev_loss_of_the_training(models, tiny_corpus, tmp_path):
    model, config = load_model(models["supernet"], "cpu")
    tokenizer = load_tokenizer(tiny_corpus.lang)
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, model, config, tokenizer)
    config.data.dev, alone = ["dev"], Ranks(0, 1, torch.device("cpu"))
    trainer = build_trainer(config, alone, tmp_path, tiny_corpus.manifests, tiny_corpus.lang)
    trainer.model.load_state_dict(model.state_dict())
    assert trainer.validate()["dev"] == pytest.approx(dev.loss(model), rel=1e-6)


@pytest.mark.parametrize("after", [1, 13])
def test_an_interrupted_search_ends_as_if_it_were_not(
    after, searched, command, tmp_path, monkeypatch
):
    loss, left = DevSet.loss, iter(range(after))

    def interrupted(self, model):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return loss(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(DevSet, "loss", interrupted)
        assert command(tmp_path, "--sample-wer", 4) == 130
    assert not (tmp_path / "pareto.json").exists()
    [known] = (tmp_path / "search").iterdir()
    assert len(known.read_text().splitlines()) == 1 + after
    calls = []
    monkeypatch.setattr(DevSet, "loss", lambda *words: calls.append(0) or loss(*words))
    assert command(tmp_path, "--sample-wer", 4) == 0
    assert timeless(tmp_path) == timeless(searched)
    assert len(calls) == record(searched)["evaluations"] - after
    assert (tmp_path / "pareto.png").read_bytes() == (searched / "pareto.png").read_bytes()


def test_interrupted_while_decoding_it_decodes_the_rest(searched, command, tmp_path, monkeypatch):
    rate, left, losses = DevSet.error_rate, iter(range(2)), []

    def interrupted(self, model):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rate(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(DevSet, "error_rate", interrupted)
        assert command(tmp_path, "--sample-wer", 4) == 130
    assert not (tmp_path / "pareto.json").exists()
    known = log_of(tmp_path).with_suffix(".wer.jsonl")
    assert len(known.read_text().splitlines()) == 1 + 2
    calls = []
    monkeypatch.setattr(DevSet, "loss", lambda *words: losses.append(0))
    monkeypatch.setattr(DevSet, "error_rate", lambda *words: calls.append(0) or rate(*words))
    assert command(tmp_path, "--sample-wer", 4) == 0
    assert timeless(tmp_path) == timeless(searched)
    assert not losses and len(known.read_text().splitlines()) == 1 + 2 + len(calls)


def test_what_is_known_serves_other_searches(searched, command, monkeypatch, tmp_path, caplog):
    """Of another seed, method or budget; random draws cost as much as was asked for."""
    known = log_of(searched)
    calls, loss = [], DevSet.loss
    monkeypatch.setattr(DevSet, "loss", lambda *words: calls.append(0) or loss(*words))
    same = ("--log", known, "--output", tmp_path / "pareto.json")
    assert command(tmp_path, *same) == 0 and not calls
    assert "--budgets 0.8: all layers must be at sparsity 0.8" in caplog.text
    assert command(tmp_path, *same, "--method", "random") == 0
    found = record(tmp_path)
    assert 0 < len(calls) < found["evaluations"]
    assert found["options"]["method"] == "random"


def density_of(model, name: str) -> float:
    """The share of a matrix that the applied masks keep."""
    return float((model.get_parameter(name) != 0).double().mean())


def test_a_layer_that_matters_is_kept(command, models, monkeypatch, tmp_path):
    """By a made-up loss that one layer alone decides: its masks are on when it is measured."""
    bank = open_source(models["supernet"], []).bank
    layers = {layer.name: layer.rows * layer.columns for layer in bank.layers}
    matters = sorted(layers, key=layers.get)[len(layers) // 2]
    rest = [name for name in layers if name != matters]

    def loss(dev, model):
        others = sum(density_of(model, name) for name in rest) / len(rest)
        return 2.0 - density_of(model, matters) - 0.1 * others

    monkeypatch.setattr(DevSet, "loss", loss)
    assert command(tmp_path, "--generations", 8, budgets=["0.5"]) == 0
    [one] = record(tmp_path)["budgets"]
    assert one["best"]["sparsities"][matters] <= 0.2
    assert one["best"]["fitness"] < one["uniform"]["fitness"] - 0.25


@pytest.mark.parametrize("sign, told", [(1, 1.0), (-1, -1.0), (0, None)])
def test_the_sample_orders_loss_and_error_rate(
    sign, told, searched, models, command, tmp_path, monkeypatch
):
    """By error rates that rise with the loss, fall with it, or are all the same."""
    monkeypatch.setattr(
        DevSet, "error_rate", lambda dev, model: 0.5 + 0.01 * sign * dev.loss(model)
    )
    # no rates are in the log's folder yet, so all of the sample are decoded
    log = tmp_path / "search" / log_of(searched).name
    log.parent.mkdir()
    log.write_bytes(log_of(searched).read_bytes())
    assert command(tmp_path, "--sample-wer", 4) == 0
    known = evaluated(log, open_source(models["supernet"], []).bank)
    found = record(tmp_path)
    large, small = found["wer"]["budgets"]
    for each in (found["wer"], large):
        assert each["rank_correlation"] == (told and pytest.approx(told))
    assert small["rank_correlation"] is None  # the smallest network has no rivals
    for one, budget in zip(found["wer"]["budgets"], found["budgets"], strict=True):
        near = [
            each["fitness"]
            for each in known
            if 0.95 * budget["parameters"] <= each["parameters"] <= budget["parameters"]
        ]
        near.sort()
        fitness = [network["fitness"] for network in one["sample"]]
        last = len(near) - 1
        assert fitness == [near[round(last * third / 3)] for third in range(4)][: len(near)]
        for network in one["sample"]:  # each was decoded with its own masks
            assert network["wer"] == pytest.approx(0.5 + 0.01 * sign * network["fitness"])
            assert 0.95 * budget["parameters"] <= network["parameters"] <= budget["parameters"]
    assert len(large["sample"]) == 4 and len(small["sample"]) == 1


def test_error_rates_of_what_is_in_the_table(searched, command, tmp_path, models, tiny_corpus):
    """Each network is decoded once, in whatever order it is asked for."""
    known = log_of(searched)
    same = ("--log", known, "--output", tmp_path / "pareto.json", "--sample-wer", 4)
    assert command(tmp_path, *same, "--wer", "true") == 0
    found = record(tmp_path)
    assert found["wer"] == record(searched)["wer"]
    source = open_source(models["supernet"], [])
    tokenizer = load_tokenizer(tiny_corpus.lang)
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, source.model, source.config, tokenizer)
    with source.bank.apply(0.5):
        assert dev.error_rate(source.model) == found["uniform"][0]["wer"]
    for one in found["budgets"]:
        with source.bank.apply(one["best"]["sparsities"]):
            assert dev.error_rate(source.model) == one["best"]["wer"]
    plain, both = ((folder / "pareto.png").read_bytes() for folder in (searched, tmp_path))
    assert plain != both
    decoded = known.with_suffix(".wer.jsonl").read_text().splitlines()[1:]
    assert len(set(decoded)) == len(decoded) >= len(found["uniform"])


def test_budgets_of_multiply_adds(searched, command, tmp_path, models):
    """They share the evaluations of a search by sparsities; extract takes what was found."""
    known = log_of(searched)
    source = open_source(models["supernet"], [])
    measure = Measure(source.model, source.bank, MULTIPLY_ADDS)
    budget = f"{measure.of(0.6) / 1e6:.6f}MMAC"
    assert command(tmp_path, "--log", known, budgets=("0.5", budget)) == 0
    found = record(tmp_path)
    assert found["unit"] == "multiply_adds"
    assert found["budgets"][0]["multiply_adds"] == measure.of(0.5)
    for one in found["budgets"]:
        best = one["best"]
        assert best["multiply_adds"] == pytest.approx(measure.of(best["sparsities"]), abs=1)
        assert best["multiply_adds"] <= one["multiply_adds"] + 1
        logged = evaluated(known, source.bank)
        assert [each["fitness"] for each in logged if each["choice"] == best["sparsities"]] == [
            best["fitness"]
        ]
        alike = [each for each in logged if len(set(each["choice"].values())) == 1]
        within = [each for each in alike if measure.of(each["choice"]) <= one["multiply_adds"] + 1]
        assert one["uniform"]["fitness"] == min(each["fitness"] for each in within)
        assert best["fitness"] <= one["uniform"]["fitness"]
    [_, best] = (one["best"] for one in found["budgets"])
    words = ("--search", tmp_path / "pareto.json", "--output", tmp_path / "small.pt")
    assert (
        extract(models["supernet"], *words, "--budget", f"{best['multiply_adds'] / 1e3}kMAC") == 0
    )
    assert read_json(tmp_path / "small.json")["sparsities"] == best["sparsities"]
    assert extract(models["supernet"], *words, "--budget", "1kMAC") == 1


CHANNELS = ("weight_pruning.unit=channel", "weight_pruning.multiple=4")
ROOM = ("--population", 12)


def test_budgets_of_milliseconds(command, tmp_path, models, monkeypatch, capsys):
    """Measured once, with made-up times; what was chosen is measured again."""
    pytest.importorskip("onnxscript")
    calls = []

    def time_graphs(graphs):
        calls.append(len(graphs))
        return [graph.ByteSize() / 1e4 for graph, _ in graphs]

    monkeypatch.setattr(milliseconds, "time_graphs", time_graphs)
    source = open_source(models["none"], list(CHANNELS))
    times = milliseconds.measure_times(source.model, source.bank, source.sparsest)
    measure = Measure(source.model, source.bank, MILLISECONDS, times)
    budgets = ["0.5", f"{measure.of(0.75):.6f}ms"]
    assert command(tmp_path, *ROOM, *CHANNELS, model="none", budgets=budgets) == 0
    assert calls == [5, 5, 1 + 2]  # those above, those of the search, and what it has chosen
    found = record(tmp_path)
    assert found["unit"] == "milliseconds"
    assert found["times"]["milliseconds"] == times.milliseconds
    assert found["times"]["for"] == "a second of speech"
    table = (tmp_path / "pareto.md").read_text()
    for one, sparsity in zip(found["budgets"], (0.5, 0.75), strict=True):
        best = one["best"]
        assert one["milliseconds"] == pytest.approx(measure.of(sparsity), abs=1e-6)
        assert best["milliseconds"] == pytest.approx(measure.of(best["sparsities"]), abs=1e-6)
        assert best["milliseconds"] <= one["milliseconds"] + 1e-6
        [took] = milliseconds.time_networks(source.model, source.bank, [best["sparsities"]])
        assert best["measured_milliseconds"] == took
        assert f"{best['milliseconds']:.3f} estimated and {took:.3f} measured" in table
        assert f"| {best['milliseconds']:.3f} ms |" in table
    # another time the machine is slower, and the same search finds the same
    monkeypatch.setattr(milliseconds, "time_graphs", lambda graphs: [9.0] * len(graphs))
    assert command(tmp_path, *ROOM, *CHANNELS, model="none", budgets=budgets) == 0
    again = record(tmp_path)
    assert [one["best"]["milliseconds"] for one in again["budgets"]] == [
        one["best"]["milliseconds"] for one in found["budgets"]
    ]
    assert again["budgets"][0]["best"]["measured_milliseconds"] == 9.0
    words = ("--search", tmp_path / "pareto.json", "--output", tmp_path / "small.pt", *CHANNELS)
    assert extract(models["none"], *words, "--budget", budgets[1]) == 0
    taken = read_json(tmp_path / "small.json")["sparsities"]
    assert taken == found["budgets"][1]["best"]["sparsities"]
    capsys.readouterr()
    assert command(tmp_path, *CHANNELS, model="none", budgets=["0.001ms"]) == 1
    error = capsys.readouterr().err
    assert "--budgets: 0.001 ms are less than the smallest sub-network has" in error
    assert f"The dense network has {times.milliseconds[0]:.3f} ms" in error


def test_a_known_error_rate(models, tiny_corpus, monkeypatch):
    """Of 10 and more words, one is left out."""
    model, config = load_model(models["supernet"], "cpu")
    tokenizer = load_tokenizer(tiny_corpus.lang)
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, model, config, tokenizer)
    words = sum(map(len, dev.references.values()))
    left_out = list(dev.references)[0]

    class Said:
        def __init__(self, name):
            kept = dev.references[name][name == left_out :]
            self.tokens = tokenizer.encode(" ".join(kept))

    batches = iter([batch["cut_ids"] for batch in dev.batches])
    monkeypatch.setattr(dev_set, "recognize", lambda *_: [Said(name) for name in next(batches)])
    assert dev.error_rate(model) == 1 / words


def test_a_part_is_fixed_and_within_its_seconds(tiny_corpus):
    cuts = open_cuts(tiny_corpus.manifests, "tones", "dev")
    seconds = sum(cut.duration for cut in cuts)
    parts = [part_of(cuts, share * seconds) for share in (1e-9, 0.4, 0.7, 1.01)]
    assert [len(parts[0]), len(parts[3])] == [1, len(cuts)]
    for part, share in zip(parts[1:3], (0.4, 0.7), strict=True):
        assert 0 < sum(cut.duration for cut in part) <= share * seconds
    backwards = part_of(cuts.sort_by_duration(), 0.4 * seconds)
    assert {cut.id for cut in backwards} == {cut.id for cut in parts[1]}
    assert part_of(cuts, None) is cuts


@pytest.mark.parametrize(
    "budgets, words, message",
    [
        (["1kMAC"], [], "--budgets: 0.001 MMAC are less than the smallest sub-network has, 1."),
        (["5MB"], [], "a budget in bytes needs weight_pruning.unit=channel, layer"),
        (["0.9"], [], "--budgets 0.9: no sub-network above sparsity 0.8 was trained"),
        (["5"], [], "'5' is neither a size, such as 800kB or 5MB, nor multiply-adds for a second"),
        (
            ["1.2ms"],
            [],
            "a budget in milliseconds needs weight_pruning.unit=channel, layer or head",
        ),
        (["1GMAC", "5MB"], [], "--budgets 1GMAC 5MB: all budgets of a search have one unit"),
        (["0.5"], ["--population", 5], "--population 5: must be at least 9. The first population"),
        (["0.5"], ["--generations", -1], "--generations=-1: must be at least 0"),
        (["0.5"], ["--dev-set", "dve"], "tones_cuts_dve.jsonl.gz does not exist"),
        (["0.5"], ["--max-seconds", 0], "--max-seconds 0: must be above 0"),
        (["0.5"], ["--rerank", -1], "--rerank -1: must be at least 0"),
        (["0.5"], ["--sample-wer", 2], "--sample-wer 2: at least 3"),
        (["0.5", "weight_pruning.block=4x1"], [], "has the masks of its training: leave out"),
    ],
)
def test_bad_words(budgets, words, message, command, tmp_path, capsys):
    assert command(tmp_path, *words, budgets=budgets) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_log_of_another_model_or_set_is_refused(searched, command, tmp_path, capsys):
    known = log_of(searched)
    before = known.read_bytes()
    assert command(tmp_path, "--log", known, model="none") == 1
    assert f"{known} holds evaluations of model=" in capsys.readouterr().err
    assert command(tmp_path, "--log", known, "--max-seconds", 2) == 1
    assert f"{known} holds evaluations of dev set=dev " in capsys.readouterr().err
    assert known.read_bytes() == before and not (tmp_path / "pareto.json").exists()
    # without its name, another one is begun
    assert command(searched, "--max-seconds", 2, "--output", tmp_path / "pareto.json") == 0
    assert known.read_bytes() == before
    assert record(tmp_path)["dev_seconds"] <= 2


def test_one_shot_prunings_of_a_model_without_masks(command, tmp_path, caplog):
    words = ["--generations", 0, "weight_pruning.block=4x1"]
    assert command(tmp_path, *words, model="none", budgets=["0.9"]) == 0
    assert "trained without masks: one-shot prunings" in caplog.text
    assert record(tmp_path)["one_shot"] and record(tmp_path)["block"] == "4x1"


def test_a_model_of_one_sparsity_has_nothing_to_search(command, tmp_path, capsys):
    assert command(tmp_path, model="gradual") == 1
    assert "weight_pruning.method=gradual trains to one sparsity" in capsys.readouterr().err


def test_by_default_there_is_room_for_all_uniform_ones(models, tiny_corpus, tmp_path, caplog):
    """Of tenths up to 0.8, and of the budgets."""
    caplog.set_level(logging.INFO)
    budgets = [f"{0.004 * level:.3f}" for level in range(110, 121)]
    data = ("--manifest-dir", tiny_corpus.manifests, "--lang-dir", tiny_corpus.lang)
    words = ("--model", models["supernet"], "--dev-set", "dev", "--generations", 0, *data)
    words = ("search", "--exp-dir", tmp_path, *words, "--budgets", *budgets)
    assert cli.main([str(word) for word in words]) == 0
    choices = record(tmp_path)["options"]["choices"]
    assert record(tmp_path)["options"]["population"] == len(choices) == 20
    assert "--population 20: as many as there are uniform sub-networks" in caplog.text


def test_a_dry_run_sees_what_a_training_will_not_have(command, models, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    save_config(load_model(models["supernet"], "cpu")[1], config)
    dry, exp = ("--dry-run", "true", "--config", config), tmp_path / "exp"
    source = open_source(models["supernet"], [])
    least = Measure(source.model, source.bank, MULTIPLY_ADDS).of(0.8) / 1e3
    assert command(exp, *dry, budgets=["0.8", f"{least}kMAC"]) == 0
    assert command(exp, *dry, budgets=[f"{least - 0.001:.3f}kMAC"]) == 1
    error = capsys.readouterr().err
    assert "are less than the smallest sub-network has" in error
    for words, message in (
        (["5MB"], "a budget in bytes needs weight_pruning.unit=channel, layer"),
        (["1kMAC"], "--budgets: 0.001 MMAC are less than the smallest sub-network"),
        (["0.81"], "--budgets 0.81: no sub-network above sparsity 0.8"),
        (["5"], "'5' is neither a size"),
        (["1.2ms"], "a budget in milliseconds needs weight_pruning.unit=channel, layer"),
        (["0.5", "weight_pruning.method=gradual"], "gradual trains to one sparsity"),
        (["0.5", "weight_pruning.blokc=8x1"], "did you mean 'block'?"),
    ):
        assert command(exp, *dry, "--lang-dir", tmp_path, budgets=words) == 1
        assert message in capsys.readouterr().err
    # without masks any sparsity will do, and where layers compete sizes depend on the weights
    alike = ["weight_pruning.method=none", "weight_pruning.scope=global"]
    assert command(exp, *dry, budgets=["0.98", "weight_pruning.method=none"]) == 0
    assert command(exp, *dry, budgets=["1kMAC", *alike]) == 0
    assert command(exp, *dry, budgets=["0.5", "1.2ms", "weight_pruning.unit=channel"]) == 0
    assert not exp.exists()
    for half in (dry[:2], dry[2:]):
        assert command(exp, *half) == 1
        assert "give both, or none" in capsys.readouterr().err


def test_a_network_that_computes_nan_never_wins(command, models, tmp_path, capsys):
    content = load_checkpoint(models["supernet"])
    content["model"]["predictor.embedding.weight"].fill_(math.nan)
    save_checkpoint(content, tmp_path / "broken.pt")
    assert command(tmp_path, "--model", tmp_path / "broken.pt") == 1
    assert "is the model a trained one?" in capsys.readouterr().err


# extract --search


def extract(model, *words):
    return cli.main(["extract", "--model", str(model), *map(str, words)])


def test_extract_takes_the_best_within_the_budget(searched, models, tmp_path, tiny_corpus):
    found = record(searched)["budgets"]
    tables = ("--search", searched / "pareto.json", "--output", tmp_path / "small.pt")
    for one in found:
        assert extract(models["supernet"], *tables, "--sparsity", one["budget"]) == 0
        tokenizer = load_tokenizer(tiny_corpus.lang)
        model, config = load_model(tmp_path / "small.pt", "cpu", tokenizer)
        dev = load_dev_set(tiny_corpus.manifests, "dev", None, model, config, tokenizer)
        assert dev.loss(model) == one["best"]["fitness"]
