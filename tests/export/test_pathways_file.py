"""The pathways of several languages in one file: as they were, and with what they share once."""

import copy
from dataclasses import asdict
from itertools import count

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.config import override
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.load import load_model, load_pathways
from asrprune.export.network import network
from asrprune.export.source import open_source
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.training.model_file import description
from asrprune.transducer.model import build_model
from tests.conftest import tiny_config
from tests.training.command import assert_same, shake

LANGUAGES = ("en", "fr", "it", "nl")
SIZES = {"num_layers": 4, "num_heads": 4, "ffn_dim": 64}
VOCABULARY = 12  # symbols of the tiny corpus


@pytest.fixture(params=["block", "2:4", "channel", "layer", "head"])
def saved(request, tiny_corpus, tmp_path):
    """A model file with the random masks of four languages; it is not trained."""
    unit = {"2:4": "block"}.get(request.param, request.param)
    sizes = {f"model__encoder_options__{name}": size for name, size in SIZES.items()}
    config = tiny_config(tiny_corpus, **sizes)
    words = [f"weight_pruning.unit={unit}", "weight_pruning.method=pathways"]
    if request.param == "2:4":
        words += ["weight_pruning.block=2:4", "weight_pruning.schedule.final=0.5"]
    config = override(config, [*words, "data.batches=monolingual"])
    model = build_model(config.model, config.loss, VOCABULARY)
    shake(model)
    bank, seeds = make_bank(model, config.weight_pruning), count()
    for language in LANGUAGES:
        generator = torch.Generator().manual_seed(next(seeds))
        masks = {}
        for name, kept in bank.blocks(0.0).items():
            masks[name] = torch.rand(kept.shape, generator=generator) < 0.4
            masks[name][next(seeds) % 2] = True  # never none
        bank.name(language, masks)
    about = {"config": asdict(config), "vocab_size": VOCABULARY}
    tokenizer = load_tokenizer(tiny_corpus.lang)
    about |= {"tokenizer_digest": tokenizer.digest, "symbols": tokenizer.symbols}
    masks = {"sparsity": 0.6, "bank": bank.state_dict()}
    path = tmp_path / "averaged.pt"
    save_checkpoint({"model": model.state_dict(), **about, "masks": masks}, path)
    return path


@pytest.fixture
def with_own(saved):
    """The model file, where two languages have own weights and fewer symbols."""
    content = load_checkpoint(saved)
    source = open_source(saved, [])
    blocks = {*source.bank.parameters(), *source.bank.tied()}
    values = {}
    for name, _ in source.model.named_parameters():
        if name not in blocks:
            value = content["model"][name]
            values[name] = value[: VOCABULARY - 2] if len(value) == VOCABULARY else value.clone()
            values[name] = values[name] * 1.5
    own = {**description(content), "vocab_size": VOCABULARY - 2, "values": values}
    own["symbols"] = own["symbols"][:-2]
    own["config"] = copy.deepcopy(own["config"])
    own["config"]["seed"] = 17  # of an earlier training
    content["masks"]["own"] = {"en": own, "it": own}
    save_checkpoint(content, saved)
    return saved


def speech():
    x = torch.randn(2, 90, 80, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([90, 57]), torch.tensor([[3, 4, 5], [6, 3, 0]]), torch.tensor([3, 2])


def computed(path, language):
    """The losses and encoder frames of a model file."""
    model, config = load_model(path, "cpu")
    pathways = load_pathways(path, model, config)
    inputs = speech()
    with torch.no_grad():
        if pathways is None:
            return [*model(*inputs), *model.encode(*inputs[:2])]
        with pathways.applied(language):
            return [*model(*inputs), *model.encode(*inputs[:2])]


def check(path, tmp_path):
    together = tmp_path / "pathways.pt"
    assert cli.main(["extract", "--model", str(path), "--pathways"]) == 0
    sizes = []
    for language in LANGUAGES:
        alone = tmp_path / f"{language}.pt"
        words = ["extract", "--model", str(path), "--language", language]
        assert cli.main([*words, "--output", str(alone)]) == 0
        sizes.append(alone.stat().st_size)
        for one, other in zip(computed(together, language), computed(alone, language), strict=True):
            assert torch.equal(one, other)
        if language in LANGUAGES[1:3]:
            continue
        again = tmp_path / f"{language}-again.pt"
        words = ["extract", "--model", str(together), "--language", language]
        assert cli.main([*words, "--output", str(again)]) == 0
        assert_same(load_checkpoint(again), load_checkpoint(alone))
    assert together.stat().st_size < 0.7 * sum(sizes)
    return load_checkpoint(together)


def test_one_file_computes_as_one_for_each_language(saved, tmp_path):
    content = check(saved, tmp_path)
    assert list(content["masks"]["bank"]["named"]) == list(LANGUAGES)
    bank, source = open_source(tmp_path / "pathways.pt", []).bank, open_source(saved, []).bank
    for language in LANGUAGES:
        assert bank.kept_parameters(language) == source.kept_parameters(language)
    if bank.cuts:
        assert bank.density(bank.union(*LANGUAGES)) == 1.0
    if bank.unit == "8x1":  # about 0.6 of four languages at 0.4, and what is in no block
        assert (tmp_path / "pathways.pt").stat().st_size < 0.95 * saved.stat().st_size


def test_with_weights_of_their_own(with_own, tmp_path):
    content = check(with_own, tmp_path)
    assert set(content["masks"]["own"]) == {"en", "it"}
    assert load_checkpoint(tmp_path / "en.pt")["vocab_size"] == VOCABULARY - 2
    assert load_checkpoint(tmp_path / "en.pt")["config"]["seed"] == 17


@pytest.mark.parametrize("saved", ["block", "channel"], indirect=True)
def test_some_languages(with_own, tmp_path):
    path = tmp_path / "two.pt"
    words = ["--pathways", "nl", "en", "--output", str(path)]
    assert cli.main(["extract", "--model", str(with_own), *words]) == 0
    content = load_checkpoint(path)
    assert set(content["masks"]["bank"]["named"]) == {"nl", "en"}
    assert list(content["masks"]["own"]) == ["en"]
    for language in ("nl", "en"):
        for one, other in zip(computed(path, language), computed(with_own, language), strict=True):
            assert torch.equal(one, other)


def test_networks_have_the_weights_of_their_language(with_own, tmp_path):
    """What is exported, and what its texts are compared with."""
    source = open_source(with_own, [])
    for language in LANGUAGES:
        expected = computed(with_own, language)
        with network(source, language) as model, torch.no_grad():
            found = [*model(*speech()), *model.encode(*speech()[:2])]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("saved", ["channel"], indirect=True)
def test_an_exported_network_names_the_symbols_of_its_language(with_own, tiny_corpus, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ["export", "--model", str(with_own), "--lang-dir", str(tiny_corpus.lang)]
    words += ["--networks", "en", "nl", "--int8", "false", "--out-dir", str(tmp_path / "onnx")]
    assert cli.main(words) == 0
    symbols = (tiny_corpus.lang / "tokens.txt").read_text().splitlines()
    for language, number in (("en", VOCABULARY - 2), ("nl", VOCABULARY)):
        found = (tmp_path / "onnx" / language / "tokens.txt").read_text().splitlines()
        assert found == symbols[:number]
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / language / "joiner.onnx")
        assert session.get_outputs()[0].shape[-1] == number


@pytest.mark.parametrize("saved", ["block"], indirect=True)
def test_what_does_not_fit_is_said(saved, tmp_path, capsys):
    words = ["extract", "--model", str(saved), "--pathways", "en", "xx"]
    assert cli.main(words) == 1
    assert "no pathway for language 'xx'" in capsys.readouterr().err
    path = tmp_path / "one.pt"
    words = ["extract", "--model", str(saved), "--language", "en", "--output", str(path)]
    assert cli.main(words) == 0
    assert cli.main(["extract", "--model", str(path), "--pathways"]) == 1
    assert "has no pathways" in capsys.readouterr().err
    content = torch.load(path, weights_only=True)
    packed = next(v for v in content["model"].values() if isinstance(v, dict))
    packed["values"] = packed["values"][1:]
    torch.save(content, path)
    with pytest.raises(UserError, match="packed weights of encoder.* are damaged"):
        load_checkpoint(path)
