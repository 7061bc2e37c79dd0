"""A sub-network of channels or layers as a model of its own: equal to the masked one, smaller."""

import dataclasses

import numpy as np
import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.config import config_from_dict, override
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.load import load_model
from asrprune.export.budget import BYTES, Measure
from asrprune.export.int8_encoder import dense_encoder
from asrprune.export.network import network, smaller
from asrprune.export.onnx_files import sum_bytes
from asrprune.export.onnx_graph import QUANTISED, quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.export.source import Source, open_source
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.transducer.encoder import windows
from asrprune.transducer.model import build_model

CHANNELS = {"method": "supernet", "unit": "channel", "multiple": 4}
ENCODERS = {
    "conformer:conformer": {"kernel_size": 7},
    "streaming_conformer:streaming_conformer": {"chunk_length": 4, "kernel_size": 5},
    "emformer:emformer": {"left_context_length": 8, "kernel_size": 5},
    "emformer:emformer, as published": {"left_context_length": 8},
}
every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def source_of(
    encoder: str,
    dim: int = 32,
    ffn_dim: int = 48,
    num_layers: int = 2,
    num_heads: int = 2,
    more: dict | None = None,
    **options,
) -> Source:
    """A model with weights that say something, and its channels."""
    factory, _, _ = encoder.partition(",")
    small = {"dim": dim, "num_layers": num_layers, "num_heads": num_heads, "ffn_dim": ffn_dim}
    sizes = {"encoder_options": {**small, **ENCODERS[encoder], **(more or {})}, "joiner_dim": 16}
    config = config_from_dict(
        {
            "model": {"encoder": f"asrprune.transducer.{factory}", **sizes},
            "weight_pruning": {**CHANNELS, **options},
        }
    )
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, 11).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 8)
    content = {
        "model": model.state_dict(), "config": dataclasses.asdict(config), "vocab_size": 11,
    }  # fmt: skip
    bank = make_bank(model, config.weight_pruning)
    return Source("a model", model, config, content, bank, False)


def layers_of(encoder: str, **sizes) -> Source:
    """A model whose layers are units."""
    return source_of(encoder, unit="layer", multiple=8, **sizes)


def outputs(model, x, lengths):
    """Of whole utterances, and chunk by chunk where an encoder can."""
    with torch.no_grad():
        found = [model.encode(x, lengths)[0]]
        if getattr(model.encoder, "streaming", False):
            state = model.encoder.initial_state(len(x), x.device, x.dtype)
            encoder = model.encoder
            for chunk, lens in windows(x, lengths, encoder.chunk_frames, encoder.lookahead_frames):
                h, state = model.encode_chunk(chunk, state, lens)
                found.append(h)
    return found


@every_encoder
@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.75])
def test_cut_and_masked_say_the_same(encoder, sparsity):
    source = source_of(encoder)
    x, lengths = torch.randn(2, 90, 80), torch.tensor([90, 53])
    with source.bank.apply(sparsity):
        masked = outputs(source.model, x, lengths)
    with network(source, sparsity) as model:
        narrow = outputs(model, x, lengths)
    assert len(narrow) == len(masked)
    assert (len(narrow) > 1) == (encoder != "conformer:conformer")
    for one, other in zip(masked, narrow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    whole = sum(value.numel() for value in source.model.parameters())
    left = sum(value.numel() for value in model.parameters())
    dropped = sum(int((~mask).sum()) for mask in source.bank.masks(sparsity).values())
    assert left == whole - dropped and (dropped > 0) == (sparsity > 0)


@every_encoder
def test_each_module_has_its_own_width(encoder):
    source = source_of(encoder)
    names = [group.name for group in source.bank.groups]
    choice = {name: 0.25 * (place % 4) for place, name in enumerate(names)}
    model, config = smaller(source, choice)
    found = config.model.encoder_options["ffn_dim"]
    assert found == [48 - 12 * (place % 4) for place in range(len(names))]
    assert config.weight_pruning.method == "none"
    again = build_model(config.model, config.loss, 11)
    again.load_state_dict(model.state_dict())


@every_encoder
@pytest.mark.parametrize("sparsity", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("unit", ["layer", "head"])
def test_without_units_and_masked_say_the_same(unit, encoder, sparsity):
    source = source_of(encoder, unit=unit, multiple=8, num_layers=4, num_heads=4)
    x, lengths = torch.randn(2, 90, 80), torch.tensor([90, 53])
    with source.bank.apply(sparsity):
        masked = outputs(source.model, x, lengths)
    model, config = smaller(source, sparsity)
    for one, other in zip(masked, outputs(model, x, lengths), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    options = config.model.encoder_options
    assert options[f"num_{unit}s"] == 4 - round(4 * sparsity)
    assert unit == "layer" or options["head_dim"] == 8
    again = build_model(config.model, config.loss, 11)
    again.load_state_dict(model.state_dict())


@pytest.mark.parametrize("unit", ["layer", "head"])
def test_the_size_without_units_is_known_before_it_is_written(unit):
    """With a left context of 3 frames, the past of fewer heads does not fill its rows."""
    pytest.importorskip("onnxscript")
    more = {"left_context_length": 3}
    source = source_of(
        "emformer:emformer", unit=unit, multiple=8, num_layers=4, num_heads=4, more=more
    )
    measure = Measure(source.model, source.bank, BYTES)
    dense = dense_encoder(source.model, source.bank).ByteSize()
    sizes = []
    for choice in (0.25, 0.75):
        saved = measure.of(0.0) - measure.of(choice)
        with network(source, choice) as model:
            part = cut(model)["encoder"]
            written = len(quantised(to_onnx(part), part.metadata).SerializeToString())
        assert written <= dense - saved < written + 512, (choice, written, dense - saved)
        sizes.append(measure.of(choice))
    # a layer has some 10,000 weights of a byte each, and a head of all layers some 4,000
    assert sizes[0] - sizes[1] > (16_000 if unit == "layer" else 6_000)
    costs = measure.cost([0.25, 0.75])(np.array([[0.25], [0.75]]))
    assert costs.tolist() == sizes


@pytest.mark.parametrize(
    ("unit", "exclude"),
    [("layer", []), ("layer", ["encoder.layers.1.*", "encoder.layers.3.*"]), ("head", [])],
)
def test_what_is_left_can_be_opened_and_cut_again(unit, exclude, tmp_path):
    source = source_of(
        "conformer:conformer", unit=unit, multiple=8, num_layers=4, num_heads=4, exclude=exclude
    )
    model, config = smaller(source, 0.9)
    path = tmp_path / "small.pt"
    about = {
        "config": dataclasses.asdict(config),
        "vocab_size": 11,
        "tokenizer_digest": "",
        "symbols": [],
    }
    save_checkpoint({"model": model.state_dict(), **about}, path)
    again = open_source(path, [])
    [group] = again.bank.groups
    assert group.units == 1
    if exclude:  # those that stay are 1 and 3 of 4; 0 or 2 was dropped
        assert len(again.model.encoder.layers) == 3
        protected = sorted(set(range(3)) - set(group.positions))
        kept = [source.model.encoder.layers[position] for position in (1, 3)]
        for number, layer in zip(protected, kept, strict=True):
            for one, other in zip(
                again.model.encoder.layers[number].parameters(), layer.parameters(), strict=True
            ):
                assert torch.equal(one, other)
    assert sum(one.numel() for one in smaller(again, 0.9)[0].parameters()) == sum(
        one.numel() for one in model.parameters()
    )


def test_only_some_modules_are_cut():
    source = source_of("conformer:conformer", exclude=["*ffn1*"])
    assert [group.name for group in source.bank.groups] == [
        "encoder.layers.0.ffn2", "encoder.layers.1.ffn2",
    ]  # fmt: skip
    assert smaller(source, 0.5)[1].model.encoder_options["ffn_dim"] == [48, 24, 48, 24]


def test_nothing_left_of_a_module():
    with pytest.raises(UserError, match="encoder.layers.0.ffn1 would keep no channel"):
        smaller(source_of("conformer:conformer"), 1.0)


LOADED = ("encoder.int8.onnx", "decoder.onnx", "joiner.int8.onnx")
WORDS = ["weight_pruning.unit=channel", "weight_pruning.multiple=4"]


def test_extracted_it_is_like_any_model(models, tmp_path, tiny_corpus):
    """It loads, decodes, is extracted from again, and is exported."""
    output = tmp_path / "half.pt"
    words = ["--model", str(models["none"]), "--sparsity", "0.5", *WORDS]
    assert cli.main(["extract", *words, "--output", str(output)]) == 0
    small, config = load_model(output, "cpu", load_tokenizer(tiny_corpus.lang))
    assert config.model.encoder_options["ffn_dim"] == [16, 16]
    source = open_source(models["none"], WORDS)
    x, lengths = torch.randn(2, 60, 80), torch.tensor([60, 41])
    with torch.no_grad(), source.bank.apply(0.5):
        expected = source.model.encode(x, lengths)[0]
    with torch.no_grad():
        torch.testing.assert_close(small.encode(x, lengths)[0], expected, rtol=1e-6, atol=1e-6)
    about = read_json(output.with_suffix(".json"))
    assert about["parameters"] == sum(value.numel() for value in small.parameters())
    assert "masks" not in load_checkpoint(output)

    quarter = tmp_path / "quarter.pt"
    words = ["--model", str(output), "--sparsity", "0.5", *WORDS, "--output", str(quarter)]
    assert cli.main(["extract", *words]) == 0
    assert load_model(quarter, "cpu")[1].model.encoder_options["ffn_dim"] == [8, 8]
    smaller_still, _ = smaller(source, 0.75)
    for name, value in load_checkpoint(quarter)["model"].items():
        assert torch.equal(value, smaller_still.state_dict()[name]), name


def test_exported_it_is_smaller_and_equal(models, tmp_path, tiny_corpus):
    """`check` holds the network against torch; the files of half the width are smaller."""
    pytest.importorskip("onnxscript")
    folder = tmp_path / "onnx"
    words = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", folder]
    assert cli.main(["export", *map(str, words), "--networks", "whole", "0.5", *WORDS]) == 0
    whole, half = (read_json(folder / "export.json")["networks"][name] for name in ("whole", "0.5"))
    for name in ("encoder.onnx", "encoder.int8.onnx"):
        assert half["files"][name]["bytes"] < whole["files"][name]["bytes"]
    # 16 channels fewer in each of 2 modules of width 16: rows, biases and columns of float32
    saved = whole["files"]["encoder.onnx"]["bytes"] - half["files"]["encoder.onnx"]["bytes"]
    assert abs(saved - 2 * 16 * (16 + 1 + 16) * 4) < 64


def written_bytes(model) -> int:
    """The bytes of the files that a runtime loads, in int8."""
    written = 0
    for name, part in cut(model).items():
        proto = to_onnx(part)
        proto = quantised(proto, part.metadata) if name in QUANTISED else proto
        written += len(proto.SerializeToString())
    return written


@pytest.mark.parametrize("encoder", ["conformer:conformer", "emformer:emformer"])
def test_the_size_of_the_files_is_known_before_they_are_written(encoder):
    pytest.importorskip("onnxscript")
    source = source_of(encoder)
    measure = Measure(source.model, source.bank, BYTES)
    names = [group.name for group in source.bank.groups]
    mixed = {name: 0.25 * (place % 4) for place, name in enumerate(names)}
    costs = measure.cost([0.0, 0.25, 0.5, 0.75])(np.array([list(mixed.values())]))
    for choice in (0.0, 0.75, mixed):
        with network(source, choice) as model:
            written = written_bytes(model)
        assert abs(measure.of(choice) - written) < 64, (choice, measure.of(choice), written)
    assert costs[0] == measure.of(mixed)


def test_a_size_is_kept_or_refused(models, tmp_path, tiny_corpus, capsys):
    pytest.importorskip("onnxscript")
    folder, source = tmp_path / "onnx", open_source(models["none"], WORDS)
    asked = f"{Measure(source.model, source.bank, BYTES).of(0.5) + 100}B"
    words = ["--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", folder]
    words = ["export", *map(str, words), *WORDS, "--networks"]
    assert cli.main([*words, asked]) == 0
    about = read_json(folder / "export.json")["networks"][asked]
    written = sum_bytes(about["files"], True)["bytes"]
    assert written == sum((folder / asked / name).stat().st_size for name in LOADED)
    assert float(asked[:-1]) - 500 < written <= float(asked[:-1])
    assert cli.main([*words, "1kB"]) == 1
    assert "are less than the smallest sub-network has" in capsys.readouterr().err
    assert cli.main([*words, asked, "--int8", "false"]) == 1
    assert "a size is that of int8 files" in capsys.readouterr().err


def test_a_model_that_names_no_channels():
    config = override(source_of("conformer:conformer").config, [])
    model = torch.nn.Module()
    model.encoder = torch.nn.Linear(8, 8)
    with pytest.raises(UserError, match="the encoder names no channels"):
        make_bank(model, config.weight_pruning)
