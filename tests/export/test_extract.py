"""A sub-network by itself is the averaged model with its masks on; budgets are kept."""

import pytest
import torch

from asrprune import cli
from asrprune.corpus.tokenizer import load_tokenizer
from asrprune.decoding.load import load_model
from asrprune.export.extract import make_bank, parse_bytes, within_budget
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.train import build_trainer
from asrprune.weight_pruning.pack import packed_bytes, read_packed, unpack
from tests.conftest import tiny_config
from tests.training.command import assert_same

SCHEDULE = {"final": 0.8, "start": 0.1, "end": 0.6, "freeze": 0.7, "refresh_interval": 3}


@pytest.fixture(scope="module")
def models(tiny_corpus, tmp_path_factory):
    """``averaged.pt`` of a training without masks, and of a supernet: method -> path."""
    paths = {}
    for method in ("none", "supernet"):
        folder = tmp_path_factory.mktemp(method)
        config = tiny_config(
            tiny_corpus, weight_pruning={"method": method, "schedule": SCHEDULE}, data__dev=[]
        )
        alone = Ranks(0, 1, torch.device("cpu"))
        trainer = build_trainer(config, alone, folder, tiny_corpus.manifests, tiny_corpus.lang)
        assert trainer.run() == 0
        assert cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
        paths[method] = folder / "averaged.pt"
    return paths


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
    bank = make_bank(model, config, content.get("masks"))
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
    packed = read_packed(output.with_suffix(".packed"))
    assert_same(dict(unpack(packed)), state)
    assert packed_bytes(packed) == bank.sizes(sparsity).float32_bytes


def test_masks_of_the_training_are_not_those_of_the_average(models):
    """They were frozen before its end, so a new ranking would give others."""
    model, config = load_model(models["supernet"], "cpu")
    masks = load_checkpoint(models["supernet"])["masks"]
    trained, fresh = make_bank(model, config, masks), make_bank(model, config, None)
    assert masks["sparsity"] == 0.8
    assert 0.2 < trained.overlap(0.5, fresh.blocks(0.5)) < 1


def test_the_least_sparsity_within_a_budget(models, tmp_path):
    model, config = load_model(models["none"], "cpu")
    bank = make_bank(model, config, None)
    sizes = [bank.sizes(level / 250).float32_bytes for level in range(250)]
    for budget in (sizes[0], sizes[40], sizes[120] + 1, sizes[249]):
        first = next(level for level, size in enumerate(sizes) if size <= budget)
        assert within_budget(bank, budget, 0.996) == first / 250
    budget = f"{sizes[125] / 1000}kB"
    output = tmp_path / "small.pt"
    assert extract("--model", models["none"], "--budget", budget, "--output", output) == 0
    packed = read_packed(output.with_suffix(".packed"))
    assert packed_bytes(packed) <= sizes[125] < packed_bytes(packed) * 1.05


def test_sizes_are_written_as_people_do():
    assert [parse_bytes(text) for text in ("5MB", "0.5 MB", "800kB", "12B")] == [
        5e6, 5e5, 8e5, 12,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words, message",
    [
        (("--budget", "1kB"), r"--budget: 0.001 MB are less than the smallest sub-network has"),
        (("--budget", "5"), "'5' is no size, such as 800kB or 5MB"),
        (("--sparsity", "1.5"), "--sparsity 1.5: must be between 0 and 1"),
        (("--sparsity", "0.5", "weight_pruning.block=16x1"), "has the masks of its training"),
    ],
)
def test_bad_words(words, message, models, tmp_path, capsys):
    output = tmp_path / "small.pt"
    assert extract("--model", models["supernet"], *words, "--output", output) != 0
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_masks_of_another_model_are_refused(models, tmp_path, capsys):
    content = load_checkpoint(models["supernet"])
    content["masks"]["bank"]["layers"][0] = ("encoder.elsewhere", 16, 16)
    save_checkpoint(content, tmp_path / "wrong.pt")
    assert extract("--model", tmp_path / "wrong.pt", "--sparsity", 0.5) == 1
    assert "the saved masks are of another model" in capsys.readouterr().err
