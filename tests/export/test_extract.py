"""A sub-network by itself is the averaged model with its masks on; budgets are kept."""

import pytest
import torch

from asrprune import cli
from asrprune.base.files import read_json, write_json
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.load import load_model
from asrprune.export.budget import MULTIPLY_ADDS, WEIGHTS, Amount, Measure
from asrprune.export.choice import searched
from asrprune.export.source import open_source
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from tests.training.command import assert_same


def extract(*words):
    try:
        return cli.main(["extract", *map(str, words)])
    except SystemExit as error:  # of the command line's parser
        return error.code


@pytest.mark.parametrize("method", ["none", "supernet"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_averaged_then_masked_is_extracted(method, sparsity, models, tmp_path, tiny_corpus):
    output = tmp_path / "small.pt"
    assert extract("--model", models[method], "--sparsity", sparsity, "--output", output) == 0
    model, config = load_model(models[method], "cpu")
    content = load_checkpoint(models[method])
    bank = make_bank(model, config.weight_pruning, content.get("masks"))
    assert ("masks" in content) == (method == "supernet")
    tokenizer = load_tokenizer(tiny_corpus.lang)
    small, _ = load_model(output, "cpu", tokenizer)  # decodes by itself
    x, lengths = torch.randn(2, 60, 80), torch.tensor([60, 41])
    with torch.no_grad(), bank.apply(sparsity):
        expected = model.encode(x, lengths)[0]
        state = {name: value.clone() for name, value in model.state_dict().items()}
    assert_same(dict(small.state_dict()), state)
    with torch.no_grad():
        assert small.encode(x, lengths)[0].equal(expected)
    assert read_json(output.with_suffix(".json"))["parameters"] == bank.kept_parameters(sparsity)


def test_masks_of_the_training_are_not_those_of_the_average(models):
    """They were frozen before its end, so a new ranking would give others."""
    model, config = load_model(models["supernet"], "cpu")
    masks = load_checkpoint(models["supernet"])["masks"]
    options = config.weight_pruning
    trained, fresh = make_bank(model, options, masks), make_bank(model, options)
    assert masks["sparsity"] == 0.8
    assert 0.2 < trained.overlap(0.5, fresh.blocks(0.5)) < 1


def test_what_was_pruned_gradually_is_one_network(models, tmp_path, capsys, tiny_corpus):
    """What stage 8 decodes is what was trained: no weight that it had left out."""
    source = open_source(models["gradual"], [])
    masks = source.bank.masks(source.sparsest)
    model, _ = load_model(models["gradual"], "cpu")
    assert source.sparsest == 0.8 and masks
    assert not any(model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    output = tmp_path / "small.pt"
    assert extract("--model", models["gradual"], "--budget", "9GMAC", "--output", output) == 0
    assert read_json(output.with_suffix(".json"))["sparsities"] == 0.8
    assert_same(dict(load_model(output, "cpu")[0].state_dict()), dict(model.state_dict()))
    capsys.readouterr()
    assert extract("--model", models["gradual"], "--sparsity", "0.3") == 1
    assert "was pruned gradually, and has the one size of sparsity 0.8" in capsys.readouterr().err


def test_the_least_sparsity_within_a_budget(models, tmp_path):
    source = open_source(models["none"], [])
    measure = Measure(source.model, source.bank, MULTIPLY_ADDS)
    costs = [measure.of(level / 250) for level in range(250)]
    budget = f"{costs[125] / 1000}kMAC"
    output = tmp_path / "small.pt"
    assert extract("--model", models["none"], "--budget", budget, "--output", output) == 0
    found = read_json(output.with_suffix(".json"))["sparsities"]
    assert measure.of(found) <= costs[125] * (1 + 1e-9) < measure.of(found - 0.004)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--budget", "1kMAC"), r"--budget: 0.001 MMAC are less than the smallest sub-network has"),
        (("--budget", "5MB"), "a budget in bytes needs weight_pruning.unit=channel, layer"),
        (("--budget", "5"), "'5' is no size, such as 800kB or 5MB"),
        (("--sparsity", "1.5"), "--sparsity 1.5: a sparsity is between 0 and 1"),
        (("--sparsity", "0.5", "weight_pruning.block=16x1"), "has the masks of its training"),
    ],
)
def test_bad_words(words, message, models, tmp_path, capsys):
    output = tmp_path / "small.pt"
    assert extract("--model", models["supernet"], *words, "--output", output) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def table(models, tmp_path):
    """As the search stage leaves it: of 0.5 and 0.7 in turns, which is better, and of 0.8."""
    source = open_source(models["supernet"], [])
    turns = {layer.name: (0.5, 0.7)[i % 2] for i, layer in enumerate(source.bank.layers)}
    small = dict.fromkeys(turns, 0.8)
    measure = Measure(source.model, source.bank, MULTIPLY_ADDS)
    networks = [
        {
            "bytes": None,
            "parameters": source.bank.kept_parameters(choice),
            "multiply_adds": round(measure.of(choice)),
            "fitness": fitness,
            "sparsities": choice,
        }
        for choice, fitness in ((turns, 1.5), (small, 2.5))
    ]
    path = tmp_path / "pareto.json"
    best = [{"best": network} for network in networks]
    about = {"model": "a.pt", "model_digest": source.digest, "rerank": 0}
    write_json(path, {**about, "budgets": best})
    return path, networks


def test_the_best_of_a_search_within_a_budget(table, models, tmp_path):
    path, (turns, small) = table
    model = tmp_path / "averaged.pt"
    save_checkpoint(load_checkpoint(models["supernet"]), model)  # equal weights: the same model
    bank = open_source(model, []).bank
    for budget, network in (
        (turns["multiply_adds"] + 50, turns),
        (turns["multiply_adds"] - 1, small),
        (small["multiply_adds"], small),
    ):
        assert extract("--model", model, "--search", path, "--budget", f"{budget / 1e3}kMAC") == 0
        output = tmp_path / f"searched-{budget / 1e6:g}MMAC.pt"
        with bank.apply(network["sparsities"]):
            state = load_checkpoint(model)["model"]
            masked = {name: value.clone() for name, value in bank.parameters().items()}
        found = load_checkpoint(output)
        assert found["sparsity"] == network["sparsities"]
        assert_same(found["model"], {**state, **{k: v.detach() for k, v in masked.items()}})


@pytest.mark.parametrize("rates, place", [((0.2, 0.1), 1), ((0.1, 0.1), 0), ((0.1, None), 0)])
def test_the_best_of_a_search_that_decoded_is_that_of_the_lowest_wer(rates, place, table, models):
    """Of equal ones, that of the lower loss; what has no words to be counted over is the worst."""
    path, networks = table
    content = read_json(path)
    for one, rate in zip(content["budgets"], rates, strict=True):
        one["best"]["wer"] = rate
    for rerank, wanted in ((5, networks[place]), (0, networks[0])):
        write_json(path, {**content, "rerank": rerank})
        source = open_source(models["supernet"], [])
        found = searched(path, Amount(networks[0]["parameters"], WEIGHTS), source, "0.6")
        assert found == wanted["sparsities"]


@pytest.mark.parametrize("sparsity, place", [(0.5, 0), (0.72, 1), (0.8, 1)])
def test_the_best_of_a_search_within_the_size_of_a_sparsity(
    sparsity, place, table, models, tmp_path
):
    path, networks = table
    words = ("--model", models["supernet"], "--sparsity", sparsity)
    for name, more in (("searched", ("--search", path)), ("uniform", ())):
        assert extract(*words, *more, "--output", tmp_path / f"{name}.pt") == 0
    found, uniform = (read_json(tmp_path / f"{name}.json") for name in ("searched", "uniform"))
    assert found["sparsities"] == networks[place]["sparsities"]
    assert found["search"] == str(path) and uniform["search"] is None
    assert found["parameters"] == networks[place]["parameters"] <= uniform["parameters"]
    assert (uniform["sparsity"], uniform["sparsities"]) == (
        pytest.approx(sparsity, abs=0.01),
        sparsity,
    )
    for about in (found, uniform):
        assert about["density"] == pytest.approx(1 - about["sparsity"])
        assert about["parameters"] < about["dense_parameters"]


@pytest.mark.parametrize(
    "method, words, message",
    [
        ("none", ("--budget", "1MMAC"), "pareto.json is of another model than"),
        ("supernet", ("--budget", "1kMAC"), "0.001 MMAC are less than the smallest sub-network of"),
        ("supernet", ("--budget", "1kMAC"), "search with --budgets 0.001MMAC"),
        ("supernet", ("--budget", "5MB"), "does not tell the bytes of its sub-networks"),
        ("supernet", ("--budget", "1.2ms"), "Search with --budgets 1.2ms"),
        ("supernet", ("--sparsity", "0.9"), "are less than the smallest sub-network of"),
        ("supernet", ("--sparsity", "0.9"), "; search with --budgets 0.9"),
        ("supernet", ("--sparsity", "2"), "--sparsity 2: a sparsity is between 0 and 1"),
    ],
)
def test_a_search_that_does_not_fit(method, words, message, table, models, tmp_path, capsys):
    output = tmp_path / "small.pt"
    assert extract("--model", models[method], "--search", table[0], *words, "--output", output) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [table[0]]


@pytest.mark.parametrize(
    "content, message", [("[1]", "is no pareto.json; the search stage (7)"), ("", "is not valid")]
)
def test_a_file_that_is_no_search(content, message, models, tmp_path, capsys):
    path = tmp_path / "pareto.json"
    path.write_text(content)
    assert extract("--model", models["supernet"], "--search", path, "--budget", "1MB") == 1
    assert message in capsys.readouterr().err


def test_masks_of_another_model_are_refused(models, tmp_path, capsys):
    content = load_checkpoint(models["supernet"])
    content["masks"]["bank"]["layers"][0] = ("encoder.elsewhere", 16, 16)
    save_checkpoint(content, tmp_path / "wrong.pt")
    assert extract("--model", tmp_path / "wrong.pt", "--sparsity", 0.5) == 1
    assert "the saved masks are of another model" in capsys.readouterr().err
