"""A language that is added to trained pathways learns, and the others keep every bit."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.data.tokenizer import extend, load_tokenizer, train_characters
from asrprune.decoding.load import load_model, load_pathways
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.resume import resume
from tests.languages import in_languages, read_lines, write_lines
from tests.training.command import assert_same
from tests.training.masked_cases import masked_config, trainer_of
from tests.training.test_pathways import LANGUAGES, average, masking

STEPS = {
    "data__batches": "monolingual",
    "data__max_duration": 14.0,
    "data__noise": {"cuts": ""},
    "data__spec_augment__probability": 0.0,
    "training__checkpoint_interval": 1000,
    "training__optimizer__lr": 1e-2,
    "training__epochs": 7,
}


def in_letters(corpus, folder: Path, letters: str, language: str | None) -> SimpleNamespace:
    """The corpus, its eight letters written as four: in one spelling or in another."""
    folder.mkdir()
    for path in corpus.manifests.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in ("train", "dev-en", "dev-de"):
        path = folder / f"tones_cuts_{name}.jsonl.gz"
        entries = read_lines(path)
        for entry in entries:
            segment = entry["supervisions"][0]
            spelt = [letters["ABCDEFGH".index(x) % 4] if x != " " else x for x in segment["text"]]
            segment["text"] = "".join(spelt)
            if language and name == "train":
                segment["language"] = language
        write_lines(path, entries)
    return SimpleNamespace(**{**vars(corpus), "manifests": folder})


@pytest.fixture(scope="module", params=["block", "channel"])
def base(request, tiny_corpus, tmp_path_factory) -> SimpleNamespace:
    """A trained model of three languages in the letters A to D, and a corpus of German.

    German, ``de``, writes the same sounds in the letters E to H.
    """
    folder = tmp_path_factory.mktemp("added")
    (folder / "languages").mkdir()
    corpus = in_languages(tiny_corpus, folder / "languages")
    first, german = (
        in_letters(corpus, folder / letters, letters, language)
        for letters, language in (("ABCD", None), ("EFGH", "de"))
    )
    first.lang, german.lang = folder / "lang", folder / "extended"
    first.lang.mkdir(), german.lang.mkdir()
    train_characters(["ABCD"], first.lang)
    extend(first.lang, ["EFGH"], german.lang)
    unit = {"unit": "channel", "multiple": 1} if request.param == "channel" else {}
    config = masked_config(first, {**masking(adapt=False), **unit}, data__dev=[], **STEPS)
    trainer = trainer_of(config, first, folder / "base")
    resume(trainer)
    assert trainer.run() == 0
    path = average(trainer.folder)
    return SimpleNamespace(folder=folder, first=first, german=german, path=path, unit=unit)


def adding(base, folder: str, protect: bool = True, path: Path | None = None, **options):
    """A training that adds German to a model."""
    path = str(path or base.path)
    corpus = options.pop("corpus", base.german)
    own = {**masking(renewal="regrow", masks=path, protect=protect), **base.unit}
    own = options.pop("weight_pruning", own)
    options = {**STEPS, "training__init_from": path, "data__dev": ["dev-en", "dev-de"], **options}
    return trainer_of(masked_config(corpus, own, **options), corpus, base.folder / folder)


@pytest.fixture(scope="module")
def added(base) -> Path:
    """A model that German was added to."""
    trainer = adding(base, "added", training__epochs=2, training__checkpoint_interval=1)
    resume(trainer)
    assert trainer.run() == 0
    return average(trainer.folder)


@pytest.mark.parametrize("protect", [False, True])
def test_a_language_that_is_added_learns(protect, base):
    """It writes the same sounds in letters that the others never use."""
    trainer = adding(base, f"protect {protect}", protect)
    resume(trainer)
    bank, validate = trainer.masking.bank, lambda: trainer.validate()["dev-de"]
    bank.name("de", 0.0)
    before = validate()
    bank.delete("de")
    assert trainer.run() == 0
    assert validate() < 0.5 * before


def test_others_keep_every_bit(base, added, tmp_path):
    """Masks, weights, losses, decoded paths, and the files of their networks."""
    before, after = load_checkpoint(base.path), load_checkpoint(added)
    named = after["masks"]["bank"]["named"]
    assert set(named) == {*LANGUAGES, "de"}
    assert after["vocab_size"] == before["vocab_size"] + 4
    models = [load_model(path, "cpu")[0] for path in (base.path, added)]
    pathways = [
        load_pathways(path, model, load_model(path, "cpu")[1])
        for path, model in zip((base.path, added), models, strict=True)
    ]
    x = torch.randn(3, 80, 80, generator=torch.Generator().manual_seed(0))
    inputs = x, torch.tensor([80, 60, 40]), torch.tensor([[3, 4], [5, 6], [4, 4]])
    inputs = *inputs, torch.tensor([2, 2, 1])
    for language in LANGUAGES:
        assert torch.equal(named[language], before["masks"]["bank"]["named"][language])
        found = []
        for model, pathway in zip(models, pathways, strict=True):
            with torch.no_grad(), pathway.applied(language):
                found.append([*model(*inputs), *model.encode(*inputs[:2]), model.vocab_size])
        assert found[0].pop() == found[1].pop() == before["vocab_size"]
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)
        files = [tmp_path / f"{language}-{number}.pt" for number in (0, 1)]
        for path, file in zip((base.path, added), files, strict=True):
            words = ["--model", str(path), "--language", language, "--output", str(file)]
            assert cli.main(["extract", *words]) == 0
        assert_same(*map(load_checkpoint, files))
    # German moved weights that no other language uses, and weights outside of all blocks
    bank = pathways[0].bank
    kept = bank.masks(bank.union(*LANGUAGES))
    moved = {
        name: (value != after["model"][name]).flatten()
        for name, value in before["model"].items()
        if value.shape == after["model"][name].shape
    }
    blocks = {name: changed for name, changed in moved.items() if name in kept}
    assert not any(changed[kept[name].flatten()].any() for name, changed in blocks.items())
    assert any(changed.any() for changed in blocks.values())
    assert moved["predictor.conv.weight"].any() and moved["joiner.encoder_proj.bias"].any()


def test_resume_while_a_language_is_added(base, added):
    expected = load_checkpoint(numbered(added.parent, "checkpoint")[-1])
    options = {"training__epochs": 2, "training__checkpoint_interval": 1}
    for number in (1, -2):
        path = numbered(added.parent, "checkpoint")[number]
        trainer = adding(base, f"again {number}", **options)
        torch.save(load_checkpoint(path), trainer.folder / path.name)
        resume(trainer)
        assert trainer.run() == 0
        assert_same(load_checkpoint(numbered(trainer.folder, "checkpoint")[-1]), expected)


def spoken(base, folder: Path, language: str) -> SimpleNamespace:
    """The corpus of German, with the training cuts in another language."""
    folder.mkdir()
    for path in base.german.manifests.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    entries = read_lines(folder / "tones_cuts_train.jsonl.gz")
    for entry in entries:
        entry["supervisions"][0]["language"] = language
    write_lines(folder / "tones_cuts_train.jsonl.gz", entries)
    return SimpleNamespace(**{**vars(base.german), "manifests": folder})


def test_a_second_language_is_added(base, added, tmp_path):
    """The first three and German keep their bits; German has weights of its own now."""
    corpus = spoken(base, tmp_path / "nl", "nl")
    trainer = adding(base, "second", path=added, corpus=corpus, training__epochs=1)
    resume(trainer)
    loss = trainer.validate()
    assert trainer.run() == 0
    assert trainer.validate() == loss  # of dev-en and dev-de
    path = average(trainer.folder)
    own = load_checkpoint(path)["masks"]["own"]
    assert {name: one["vocab_size"] for name, one in own.items()} == {
        **dict.fromkeys(LANGUAGES, 8),
        "de": 12,
    }
    for language in (*LANGUAGES, "de"):
        files = [tmp_path / f"{language}-{number}.pt" for number in (0, 1)]
        for model, file in zip((added, path), files, strict=True):
            words = ["--model", str(model), "--language", language, "--output", str(file)]
            assert cli.main(["extract", *words]) == 0
        assert_same(*map(load_checkpoint, files))


def test_what_an_earlier_addition_froze_and_a_later_one_moves(base, tmp_path):
    """The earlier one gives the first languages no own values of what it leaves as it is."""
    options = {"training__epochs": 1, "training__freeze": ["predictor.conv"]}
    first = adding(base, "frozen", **options)
    resume(first)
    assert first.run() == 0
    path = average(first.folder)
    own = load_checkpoint(path)["masks"]["own"]["en"]["values"]
    assert own and not any(name.startswith("predictor.conv") for name in own)
    corpus = spoken(base, tmp_path / "nl", "nl")
    second = adding(base, "thawed", path=path, corpus=corpus, training__epochs=1)
    resume(second)
    loss = second.validate()
    assert second.run() == 0
    assert second.validate() == loss


def test_protected_gradients_do_not_count(base):
    """Clipping and the logged norm are of what a step moves, also where units are cut out."""
    trainer = adding(base, "clipped", training__epochs=2)
    resume(trainer)
    bank, seen = trainer.masking.bank, []

    def check(*_):
        masks = bank.masks("de")
        for name, mask in bank.masks(bank.union(*LANGUAGES)).items():
            gradient = bank.parameters()[name].grad
            seen.append(bool((mask & masks[name]).any()))
            assert not gradient[mask | ~masks[name]].any()

    trainer.optimizer.register_step_pre_hook(check)
    assert trainer.run() == 0
    assert any(seen)


def test_a_file_of_pathways_has_zeros_for_an_added_language(base, tmp_path, caplog):
    path = tmp_path / "pathways.pt"
    words = ["--model", str(base.path), "--pathways", "--output", str(path)]
    assert cli.main(["extract", *words]) == 0
    try:
        resume(adding(base, "zeros", path=path))
    except UserError:  # the units that nobody keeps are gone
        assert base.unit
        return
    assert "an added language begins with zeros elsewhere" in caplog.text


def test_what_does_not_fit_is_said(base, added):
    french = spoken(base, base.folder / "french", "fr")
    with pytest.raises(UserError, match="fr has weights of its own, which a training cannot go"):
        resume(adding(base, "french again", path=added, corpus=french))
    with pytest.raises(UserError, match=r"init_from=.*have weights of their own.*protect=true to"):
        masks = {"weight_pruning": {**masking(), **base.unit}}
        resume(adding(base, "common", False, added, **masks))
    with pytest.raises(UserError, match=r"have weights of their own.* Set .*protect=true"):
        resume(adding(base, "joint", False, added))
    other = base.folder / "other"
    other.mkdir()
    train_characters(["ABCDEFGHZ"], other)
    (other / "tokens.txt").write_text((other / "tokens.txt").read_text().replace("A 4", "Y 4"))
    strange = SimpleNamespace(**{**vars(base.german), "lang": other})
    with pytest.raises(UserError, match=r"--lang-dir does not begin with the symbols of .*extend"):
        resume(adding(base, "strange", corpus=strange))
    assert load_tokenizer(base.german.lang).symbols[:8] == load_tokenizer(base.first.lang).symbols
