"""Decoding by language: each cut by its own pathway, as if that were a model by itself."""

import copy
import re
from pathlib import Path

import pytest
import torch
from lhotse import CutSet

from asrprune import cli
from asrprune.base.files import read_json
from asrprune.data.batches import open_cuts
from asrprune.decoding import pathways as module
from asrprune.decoding.load import load_model, load_pathways
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint

SPARSITIES = {"en": 0.2, "fr": 0.5, "cy": 0.6}


@pytest.fixture(scope="module")
def pathways(models, tmp_path_factory) -> Path:
    """A model whose languages have masks of other sizes, and of other weights."""
    path = tmp_path_factory.mktemp("pathways") / "averaged.pt"
    model, config = load_model(models["none"], "cpu")
    bank = make_bank(model, config.weight_pruning)
    content = load_checkpoint(models["none"])
    for seed, (language, sparsity) in enumerate(SPARSITIES.items()):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in other.parameters():
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                parameter.add_(0.05 * noise)
        bank.name(language, make_bank(other, config.weight_pruning).blocks(sparsity))
    content["config"]["weight_pruning"]["method"] = "pathways"
    masks = {"sparsity": 0.6, "bank": bank.state_dict(), "steps": dict.fromkeys(SPARSITIES, 9)}
    save_checkpoint({**content, "masks": masks}, path)
    return path


@pytest.fixture
def corpus(tiny_corpus, tmp_path):
    """``dev`` in turns of three languages."""
    cuts = list(open_cuts(tiny_corpus.manifests, "tones", "dev"))
    return write(tmp_path, [list(SPARSITIES)[number % 3] for number in range(len(cuts))], cuts)


def write(folder, languages, cuts):
    for cut, language in zip(cuts, languages, strict=True):
        cut.supervisions[0].language = language
    CutSet.from_cuts(cuts).to_file(folder / "tones_cuts_dev.jsonl.gz")
    return folder


def decode(model, corpus, tiny_corpus, folder, *words):
    where = ("--manifest-dir", corpus, "--lang-dir", tiny_corpus.lang)
    told = ("decode", "--exp-dir", folder, "--model", model, *where, "--test-sets", "dev", *words)
    code = cli.main([str(word) for word in told])
    results = list(folder.glob("*/recogs-dev-*.txt"))
    return code, results[0].read_text().splitlines() if results else []


@pytest.mark.parametrize("cached", [1, 8])
@pytest.mark.parametrize("duration", [3, 300])
def test_each_cut_by_its_own_pathway(
    cached, duration, pathways, corpus, tiny_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "MOST_CACHED", cached)
    words = (f"decoding.max_duration={duration}", "decoding.blank_penalty=20")
    code, lines = decode(pathways, corpus, tiny_corpus, tmp_path / "all", *words)
    assert code == 0
    alone, texts = {}, set()
    for language in SPARSITIES:
        output = tmp_path / f"{language}.pt"
        told = ("extract", "--model", pathways, "--language", language, "--output", output)
        assert cli.main([str(word) for word in told]) == 0
        code, theirs = decode(output, corpus, tiny_corpus, tmp_path / language, *words)
        assert code == 0
        # the hypothesis comes after the reference
        alone[language] = dict(line.split(":", 1) for line in theirs)
        texts.add(str(theirs))
    assert len(texts) > 1  # it matters whose pathway it is
    found = dict(line.split(":", 1) for line in lines)
    for cut in open_cuts(corpus, "tones", "dev"):
        assert found[cut.id] == alone[cut.supervisions[0].language][cut.id]


def test_going_back_to_a_pathway_is_cached_and_leaves_the_model(pathways):
    model, config = load_model(pathways, "cpu")
    switch = load_pathways(pathways, model, config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x, lengths = torch.randn(2, 60, 80), torch.tensor([60, 41])

    def heard(language):
        with torch.no_grad(), switch.applied(language):
            return model.encode(x, lengths)[0]

    first = {language: heard(language) for language in SPARSITIES}
    assert not first["en"].equal(first["fr"])
    for language in ("fr", "cy", "en", "fr"):
        assert heard(language).equal(first[language])
    assert all(before[name].equal(value) for name, value in model.state_dict().items())


def test_a_pathway_by_itself(pathways, tmp_path):
    output = tmp_path / "fr.pt"
    told = ("extract", "--model", pathways, "--language", "fr", "--output", output)
    assert cli.main([str(word) for word in told]) == 0
    model, config = load_model(output, "cpu")
    assert load_pathways(output, model, config) is None
    about = read_json(output.with_suffix(".json"))
    assert about["sparsity"] == pytest.approx(0.5, abs=0.02) and about["sparsities"] == "fr"
    assert about["parameters"] < about["dense_parameters"]


@pytest.mark.parametrize(
    "languages, message",
    [
        (["en", "de"] * 3, "dev: cut dev-.*: there is no pathway for language 'de'.*: en, fr, cy"),
        (["en", None] * 3, "dev: cut dev-.* does not say in which language it is"),
    ],
)
def test_a_cut_without_a_pathway(languages, message, pathways, tiny_corpus, tmp_path, capsys):
    corpus = write(tmp_path, languages, list(open_cuts(tiny_corpus.manifests, "tones", "dev")))
    code, lines = decode(pathways, corpus, tiny_corpus, tmp_path / "exp")
    assert code == 1 and not lines
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    "words, message",
    [
        (("--language", "de"), "no pathway for language 'de'.*; there are: en, fr, cy"),
        (("--sparsity", "0.5"), "has a pathway for each language, and no sizes: name one of"),
        (("--language", "en", "--search", "a.json"), "--search: is for a supernet"),
    ],
)
def test_what_cannot_be_taken_out(words, message, pathways, capsys):
    assert cli.main(["extract", "--model", str(pathways), *words]) == 1
    assert re.search(message, capsys.readouterr().err)
