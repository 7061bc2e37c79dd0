"""Starting from a trained model: what of it is taken, with the same symbols and with others."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.resume import resume
from asrprune.weight_pruning.masks.masked_weights import masked_state
from tests.training.command import assert_same
from tests.training.masked_cases import METHODS, masked_config, trainer_of

SPECIAL = ["<blk>", "<sos/eos>", "<unk>"]
# the corpus has the letters A to H; some of them in another order, and some that it has not
OTHER = [*SPECIAL, "H", "Y", "▁", "A", "Z", "C", "B", "D", "Ä", "E"]
LSTM = {"model__predictor": "asrprune.transducer.predictor:lstm"}
KEPT = {"method": "gradual", "schedule": {"kind": "constant", "final": 0.8, "freeze": 0.0}}


@pytest.fixture
def other_corpus(tiny_corpus, tmp_path) -> SimpleNamespace:
    """The tiny corpus with the symbols OTHER."""
    folder = tmp_path / "lang_other"
    folder.mkdir()
    lines = (f"{symbol} {number}\n" for number, symbol in enumerate(OTHER))
    (folder / "tokens.txt").write_text("".join(lines))
    return SimpleNamespace(**{**vars(tiny_corpus), "lang": folder})


@pytest.fixture
def make(tiny_corpus, tmp_path, caplog):
    """``make(folder, path, corpus, masking, **options)``: a trainer that has begun."""
    caplog.set_level(logging.INFO)

    def make(folder, path="", corpus=tiny_corpus, masking=None, **options):
        config = masked_config(corpus, masking or {}, training__init_from=str(path), **options)
        trainer = trainer_of(config, corpus, tmp_path / folder)
        resume(trainer)
        return trainer

    return make


def symbols_of(corpus) -> list[str]:
    lines = (corpus.lang / "tokens.txt").read_text().splitlines()
    return [line.rpartition(" ")[0] for line in lines]


def told(caplog) -> dict[str, tuple[int, str]]:
    """Numbers of parameters and their modules, as the log has them: kept, partly kept, fresh."""
    found = re.findall(r"  (kept|partly kept|fresh): +([\d,]+).*: (.*)", caplog.text)
    return {what: (int(count.replace(",", "")), names) for what, count, names in found}


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
def test_rows_of_symbols_that_both_have(predictor, make, other_corpus, tiny_corpus, caplog):
    options = LSTM if predictor == "lstm" else {}
    source = make("source", **options)
    with torch.no_grad():
        for value in source.model.state_dict().values():
            value += 1
    path = source.save_checkpoint()
    theirs = load_checkpoint(path)["model"]
    fresh = make("fresh", corpus=other_corpus, **options).model.state_dict()
    caplog.clear()
    trainer = make("exp", path, other_corpus, **options)
    mine = trainer.model.state_dict()
    by_symbol = {"predictor.embedding.weight", "joiner.output.weight", "joiner.output.bias"}
    by_symbol |= {f"simple_{side}.{kind}" for side in ("am", "lm") for kind in ("weight", "bias")}
    copied = sum(value.numel() for name, value in mine.items() if name not in by_symbol)
    theirs_of = {symbol: place for place, symbol in enumerate(symbols_of(tiny_corpus))}
    common = {symbol for symbol in OTHER if symbol in theirs_of}
    assert len(common) == 10
    parts = 0
    for name, value in mine.items():
        if name not in by_symbol:
            assert torch.equal(value, theirs[name]), name
            continue
        for place, symbol in enumerate(OTHER):
            row = theirs[name][theirs_of[symbol]] if symbol in common else fresh[name][place]
            assert torch.equal(value[place], row), (name, symbol)
            parts += value[place].numel() * (symbol in common)
    assert "10 of the 13 symbols here are among its 12" in caplog.text
    statistics = sum(mine[f"feature_{name}"].numel() for name in ("mean", "std"))
    numbers = told(caplog)
    assert numbers["kept"][0] == copied - statistics
    assert numbers["partly kept"] == (
        parts, "predictor.embedding, joiner.output, simple_am, simple_lm"
    )  # fmt: skip
    assert numbers["fresh"] == (0, "none")
    assert trainer.run() == 0


def test_the_same_symbols_in_another_tokenizer(make, models, tiny_corpus, tmp_path, caplog):
    content = load_checkpoint(models["none"])
    torch.save({**content, "tokenizer_digest": "other"}, tmp_path / "other.pt")
    trainer = make("exp", tmp_path / "other.pt")
    assert_same(dict(trainer.model.state_dict()), content["model"])
    assert "12 of the 12 symbols here are among its 12" in caplog.text
    assert told(caplog)["partly kept"] == told(caplog)["fresh"] == (0, "none")


def test_what_is_of_another_shape_is_fresh(make, models, other_corpus, caplog):
    options = {"corpus": other_corpus, "model__joiner_dim": 24}
    fresh = make("fresh", **options).model.state_dict()
    caplog.clear()
    mine = make("exp", models["none"], **options).model.state_dict()
    numbers = told(caplog)
    assert numbers["kept"][1] == "encoder, predictor.conv"
    listed = "predictor.embedding, joiner.output.bias, simple_am, simple_lm"
    assert numbers["partly kept"][1] == listed
    listed = "joiner.encoder_proj, joiner.predictor_proj, joiner.output.weight"
    assert numbers["fresh"][1] == listed
    for name, value in mine.items():
        if name.startswith("joiner.") and name != "joiner.output.bias":
            assert torch.equal(value, fresh[name]), name
    caplog.clear()
    make("lstm", models["none"], corpus=other_corpus, **LSTM)
    assert "predictor.lstm" in told(caplog)["fresh"][1]


def test_options_that_change_what_equal_shapes_compute_are_told(make, models, caplog):
    encoder = {"dim": 16, "num_layers": 1, "num_heads": 4, "ffn_dim": 32, "kernel_size": 7}
    make("exp", models["none"])
    assert "other options" not in caplog.text
    make("heads", models["none"], model__encoder_options={**encoder, "dropout": 0.2})
    message = "had other options, and equal shapes do not mean that it computes the same: "
    assert f"{message}encoder_options.num_heads 2 -> 4\n" in caplog.text


@pytest.mark.parametrize("kind", ["averaged", "epoch", "checkpoint"])
def test_all_kinds_of_files(kind, make, models, caplog):
    folder = models["none"].parent
    path = models["none"] if kind == "averaged" else numbered(folder, kind)[-1]
    trainer = make("exp", path)
    assert_same(dict(trainer.model.state_dict()), dict(load_checkpoint(path)["model"]))
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    assert f"starting from {path}: all of its {count:,} parameters" in caplog.text
    assert trainer.position.step == 0 and not trainer.optimizer.state


def test_symbols_stay_with_the_weights(models, tiny_corpus, tmp_path):
    words = ["--model", str(models["none"]), "--sparsity", "0.5"]
    for verb in ("extract", "masks"):
        assert cli.main([verb, *words, "--output", str(tmp_path / f"{verb}.pt")]) == 0
    checkpoint = numbered(models["none"].parent, "checkpoint")[-1]
    for path in (checkpoint, models["none"], tmp_path / "extract.pt", tmp_path / "masks.pt"):
        assert load_checkpoint(path)["symbols"] == symbols_of(tiny_corpus)


def test_what_cannot_be_started_from_is_named(make, models, other_corpus, tmp_path):
    encoder = {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32, "kernel_size": 7}
    for corpus in (None, other_corpus):
        more = {"corpus": corpus} if corpus else {}
        message = r"of another shape: encoder.layers.1\S+ is none there and of shape"
        with pytest.raises(UserError, match=message):
            make(f"deeper {bool(corpus)}", models["none"], **more, model__encoder_options=encoder)
    path = tmp_path / "other.pt"
    for content, message in (
        (b"", "other.pt is damaged, or no model of this version"),
        ({"model": {}}, "other.pt is damaged, or no model of this version"),
        ({"format": 1, "model": {}}, "other.pt is no model: no 'config' in it"),
    ):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(UserError, match=message) as error:
            make(f"{len(content)}", path)
        assert "delete" not in str(error.value)
    for frozen, message in (
        ("joiner", r"training.freeze: rows of joiner.output.weight would stay as initialised"),
        ("predictor.embedding", r"rows of predictor.embedding.weight would .* another tokenizer"),
    ):
        with pytest.raises(UserError, match=message):
            make(f"frozen {frozen}", models["none"], other_corpus, training__freeze=[frozen])
    make("frozen", models["none"], other_corpus, training__freeze=["predictor.conv", "encoder"])
    with pytest.raises(UserError, match="freeze: joiner.encoder_proj.weight would stay as init"):
        options = {"training__freeze": ["joiner.*_proj"], "model__joiner_dim": 24}
        make("fresh", models["none"], other_corpus, **options)


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_a_sparse_model_starts_as_it_decodes(method, make, models, other_corpus):
    """With any method that is not of pathways, and any tokenizer; whatever hid behind its mask."""
    content = load_checkpoint(models["gradual"])
    trainer = make("exp", models["gradual"], masking=METHODS.get(method))
    options = masked_config_of(content)
    bank = make_bank(trainer.model, options.weight_pruning, content["masks"])
    decoded = masked_state(content["model"], bank, 0.8)
    zeros = sum(int((value == 0).sum()) for value in decoded.values())
    assert zeros > sum(int((value == 0).sum()) for value in content["model"].values())
    assert_same(dict(trainer.model.state_dict()), decoded)
    other = make("other", models["gradual"], other_corpus, METHODS.get(method)).model
    for name, value in other.encoder.state_dict().items():
        assert torch.equal(value, decoded[f"encoder.{name}"])


def masked_config_of(content):
    from asrprune.config import config_from_dict

    return config_from_dict(content["config"])


def test_its_masks_can_be_kept(make, models, caplog):
    source = load_checkpoint(models["gradual"])
    trainer = make("exp", models["gradual"], masking=KEPT)
    assert "schedule.kind=constant schedule.freeze=0 schedule.final=0.8" in caplog.text
    options = masked_config_of(source).weight_pruning
    kept = make_bank(trainer.model, options, source["masks"]).masks(0.8)
    assert_same(trainer.masking.bank.masks(0.8), kept)
    assert trainer.run() == 0
    assert_same(trainer.masking.bank.masks(0.8), kept)
    moved = 0
    for name, weight in trainer.masking.bank.parameters().items():
        assert not weight[~kept[name]].any() and not trainer.average.mean[name][~kept[name]].any()
        moved += int((weight != source["model"][name])[kept[name]].sum())
    assert moved
    dense = make("dense", models["gradual"])
    assert dense.run() == 0
    assert any(dense.model.get_parameter(name)[~kept[name]].any() for name in kept)


@pytest.mark.parametrize("source", ["none", "supernet"])
@pytest.mark.parametrize("method", ["none", *METHODS])
def test_masks_are_of_the_weights_that_a_training_starts_with(source, method, make, models):
    masking = METHODS.get(method, {})
    masking = {**masking, "schedule": KEPT["schedule"]} if masking else {}
    trainer = make("exp", models[source], masking=masking)
    content = load_checkpoint(models[source])
    assert_same(dict(trainer.model.state_dict()), content["model"])
    if not masking:
        return
    weights = trainer.masking.bank.parameters()
    for group in trainer.masking.bank.groups:
        kept = trainer.masking.bank.blocks(0.5)[group.name]
        parts = [weights[layer.name].detach() for layer in group.layers]
        if len(parts) == 1:
            scores = parts[0].flatten(1).unflatten(0, (-1, 8)).square().mean(1).flatten()
        else:
            rows, bias, columns = parts
            scores = torch.cat([rows, bias[:, None], columns.T], 1).square().mean(1)
        assert scores[kept].min() >= scores[~kept].max() * (1 - 1e-6)


def test_pathways_are_no_single_network(make, models, tmp_path):
    content = load_checkpoint(models["gradual"])
    content["config"]["weight_pruning"]["method"] = "pathways"
    torch.save(content, tmp_path / "pathways.pt")
    for method in ("none", "gradual", "supernet"):
        with pytest.raises(UserError, match="has a network for each language.* --language") as told:
            make(method, tmp_path / "pathways.pt", masking=METHODS.get(method))
        assert f"weight_pruning.pathways.masks={tmp_path}/pathways.pt" in str(told.value)


def test_a_checkpoint_amid_the_ramp(make):
    """It has the mask that its sparsity had come to."""
    source = make("source", masking=METHODS["gradual"])
    assert source.run() == 0
    path = numbered(source.folder, "checkpoint")[len(numbered(source.folder, "checkpoint")) // 2]
    content = load_checkpoint(path)
    sparsity = content["masking"]["sparsity"]
    assert 0 < sparsity < 0.8
    source.masking.bank.load_state_dict(content["masking"]["bank"])
    decoded = masked_state(content["model"], source.masking.bank, sparsity)
    assert_same(dict(make("exp", path).model.state_dict()), decoded)


def test_resumed_it_does_not_start_again(make, models, tmp_path, other_corpus):
    """And needs the file no more."""
    path = tmp_path / "start.pt"
    path.write_bytes(models["none"].read_bytes())
    options = {"corpus": other_corpus, "training__freeze": ["encoder.layers.0"]}
    whole = make("whole", path, **options)
    assert whole.run() == 0
    path.unlink()
    for number in (1, 7, 12):
        part = tmp_path / f"part {number}"
        part.mkdir()
        checkpoint = whole.folder / f"checkpoint-{number}.pt"
        (part / checkpoint.name).write_bytes(checkpoint.read_bytes())
        again = make(part.name, path, **options)
        assert again.position.step == number
        assert again.run() == 0
        assert_same(again.state_dict(), whole.state_dict())
