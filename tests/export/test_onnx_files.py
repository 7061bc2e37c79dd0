"""Exported networks compute what the model does, for any batch, length and place in a stream."""

import dataclasses
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import asrprune
from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.config import config_from_dict, override
from asrprune.export import onnx_files
from asrprune.export.choice import wanted_of
from asrprune.export.onnx_graph import check, quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.export.source import open_source
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.transducer.encoder import windows
from asrprune.transducer.model import build_model
from tests.export.conftest import ENCODERS
from tests.training.command import shake

SIZES = {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 32}


def make(kind, predictor="stateless", **options):
    """A model of random weights, none of them zero."""
    encoder, given = ENCODERS[kind]
    config = config_from_dict(
        {
            "model": {
                "encoder": f"asrprune.transducer.{encoder}",
                "encoder_options": {**SIZES, **given, **options},
                "predictor": f"asrprune.transducer.predictor:{predictor}",
                "predictor_options": {"dim": 16},
                "joiner_dim": 12,
            }
        }
    )
    torch.manual_seed(0)
    model = shake(build_model(config.model, config.loss, 20)).eval()
    model.feature_mean.normal_()
    model.feature_std.uniform_(0.5, 2)
    return model


def session(proto):
    return onnxruntime.InferenceSession(proto.SerializeToString())


def test_whole_utterances():
    model = make("conformer", num_layers=1)
    encoder = session(to_onnx(cut(model)["encoder"]))
    assert [i.name for i in encoder.get_inputs()] == ["x", "x_lens"]
    for lengths in ([1], [7], [90, 203, 4], [1500, 1499]):
        x, x_lens = torch.randn(len(lengths), max(lengths), 80) * 3, torch.tensor(lengths)
        with torch.no_grad():
            h, h_lens = model.encode(x, x_lens)
            h = model.joiner.project_encoder(h)
        found, found_lens = encoder.run(None, {"x": x.numpy(), "x_lens": x_lens.numpy()})
        assert found_lens.tolist() == h_lens.tolist()
        np.testing.assert_allclose(found, h.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "kind, options",
    [
        ("emformer", {}),
        ("emformer", {"kernel_size": 0, "left_context_length": 30}),  # as published
        ("emformer", {"right_context_length": 0, "rotary": False}),
        ("streaming_conformer", {}),
        # narrow heads: the state has a third of the numbers, or does not fill its last row
        ("emformer", {"num_heads": 1, "head_dim": 6, "left_context_length": 3}),
        ("streaming_conformer", {"num_heads": 1, "head_dim": 6, "left_context_length": 3}),
        ("streaming_conformer", {"num_heads": 3, "head_dim": 2, "left_context_length": 8}),
    ],
)
def test_streams_of_any_age_in_one_batch(kind, options):
    """Chunk by chunk as sherpa-onnx does it, a stream gives what the model makes of the whole."""
    model = make(kind, **options)
    part = cut(model)["encoder"]
    encoder, numbers = session(to_onnx(part)), part.metadata
    assert numbers["T"] == numbers["decode_chunk_len"] + numbers["pad_length"]
    shapes = {
        "past": (2, numbers["left_context"], 1, numbers["encoder_dim"]),
        "history": (2, numbers["cnn_module_kernel"] - 1, 1, numbers["encoder_dim"]),
    }
    lengths, late = [333, 250, 40], [0, 3, 1]  # frames, and the call in which each stream begins
    x = [torch.randn(length, 80) for length in lengths]
    sizes = numbers["decode_chunk_len"], numbers["pad_length"]
    chunks = [
        [window[0].numpy() for window, _ in windows(one[None], torch.tensor([len(one)]), *sizes)]
        for one in x
    ]
    states = [{name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for _ in x]
    outputs = [[] for _ in x]
    for call in range(max(len(chunks[n]) + late[n] for n in range(3))):
        active = [n for n in range(3) if 0 <= call - late[n] < len(chunks[n])]
        inputs = {
            "x": np.stack([chunks[n][call - late[n]] for n in active]),
            "processed_frames": np.array(
                [(call - late[n]) * numbers["decode_chunk_len"] for n in active]
            ),
        }
        for name in shapes:
            inputs[name] = np.concatenate([states[n][name] for n in active], axis=2)
        h, *new = encoder.run(None, inputs)
        for place, n in enumerate(active):
            outputs[n].append(h[place])
            for name, value in zip(shapes, new, strict=True):
                states[n][name] = value[:, :, place : place + 1]
    for one, pieces in zip(x, outputs, strict=True):
        whole = len(one) // numbers["decode_chunk_len"] * numbers["decode_chunk_len"]
        with torch.no_grad():
            # sherpa-onnx is given zeros of features, not of what they are normalised to
            padded = torch.cat((one, torch.zeros(numbers["T"], 80)))
            h, _ = model.encode(padded[None], torch.tensor([len(padded)]))
            h = model.joiner.project_encoder(h)[0, : whole // model.encoder.subsampling]
        np.testing.assert_allclose(np.concatenate(pieces)[: len(h)], h.numpy(), atol=1e-4)
        assert len(h) > 5


def test_the_predictor_knows_no_last_symbol():
    """sherpa-onnx begins with [-1, 0], where -1 is no symbol, and not the table's last row."""
    model = make("conformer")
    parts = cut(model)
    predictor, joiner = (session(to_onnx(parts[name])) for name in ("decoder", "joiner"))
    with torch.no_grad():
        start = model.predictor(torch.zeros(1, 0, dtype=torch.int64))[:, 0]
        wanted = model.joiner.project_predictor(start).numpy()
        found = predictor.run(None, {"y": np.array([[-1, 0]])})[0]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        last = predictor.run(None, {"y": np.array([[19, 0]])})[0]
        assert np.abs(last - found).max() > 1e-2
        a, b = torch.randn(5, 12), torch.randn(5, 12)
        scores = joiner.run(None, {"encoder_out": a.numpy(), "decoder_out": b.numpy()})[0]
        np.testing.assert_allclose(scores, model.joiner(a, b).numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["conformer", "emformer", "streaming_conformer"])
def test_what_a_file_holds(kind):
    """No word about where it was made; every matrix in int8; the numbers that are read."""
    model = make(kind, num_layers=1, dim=64, ffn_dim=256)
    part = cut(model)["encoder"]
    proto = to_onnx(part)
    small = quantised(proto, part.metadata)
    for one in (proto, small):
        content = one.SerializeToString()
        assert str(Path(asrprune.__file__).parent).encode() not in content
        assert b"forward" not in content
        assert {e.key: e.value for e in one.metadata_props} == {
            key: str(value) for key, value in part.metadata.items()
        }
    constants = {i.name for i in small.graph.initializer if len(i.dims) == 2}
    for node in small.graph.node:
        assert not (node.op_type in ("MatMul", "Gemm") and constants & set(node.input)), node
    assert len(small.SerializeToString()) < 0.5 * len(proto.SerializeToString())


def test_a_network_that_differs_is_not_written():
    model = make("conformer")
    part = cut(model)["joiner"]
    proto = to_onnx(part)
    check(part, proto, "it")
    with torch.no_grad():
        model.joiner.output.bias[3] += 0.1
    with pytest.raises(UserError, match="it: logit differs by 0.0.* of its size once exported"):
        check(part, proto, "it")


def test_what_has_no_place_in_sherpa():
    with pytest.raises(UserError, match="the predictor LstmPredictor cannot be exported"):
        cut(make("conformer", predictor="lstm"))
    with pytest.raises(UserError, match="without left context cannot be exported for streaming"):
        cut(make("emformer", left_context_length=0))
    model = make("emformer")
    model.encoder.initial_state = lambda *_: (torch.zeros(1),)
    with pytest.raises(UserError, match="encoder Emformer cannot be exported for streaming"):
        cut(model)


def export(*words):
    return cli.main(["export", *map(str, words)])


def outputs(folder, x):
    encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
    lengths = np.full(len(x), x.shape[1])
    return encoder.run(None, {"x": x.numpy(), "x_lens": lengths})[0]


@pytest.fixture(scope="module")
def pathways(models, tmp_path_factory):
    """A model with a pathway for each of two languages."""
    source = open_source(models["none"], [])
    bank = source.bank
    bank.name("en", 0.5)
    bank.name("cy", {layer.name: 0.3 for layer in bank.layers})
    config = override(source.config, ["weight_pruning.method=pathways"])
    content = load_checkpoint(models["none"])
    path = tmp_path_factory.mktemp("pathways") / "averaged.pt"
    masks = {"sparsity": 0.5, "bank": bank.state_dict()}
    save_checkpoint({**content, "config": dataclasses.asdict(config), "masks": masks}, path)
    return path


def test_each_language_by_itself(pathways, tiny_corpus, tmp_path):
    folder = tmp_path / "onnx"
    words = ("--lang-dir", tiny_corpus.lang, "--out-dir", folder, "--int8", "false")
    assert export("--model", pathways, *words) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["cy", "en", "export.json"]
    source, x = open_source(pathways, []), torch.randn(2, 77, 80)
    before = {name: value.clone() for name, value in source.model.state_dict().items()}
    found = {}
    for language in ("en", "cy"):
        with torch.no_grad(), source.bank.apply(language):
            h, _ = source.model.encode(x, torch.tensor([77, 77]))
            wanted = source.model.joiner.project_encoder(h)
        found[language] = outputs(folder / language, x)
        np.testing.assert_allclose(found[language], wanted.numpy(), atol=1e-4)
        assert (folder / language / "tokens.txt").read_text() == (
            tiny_corpus.lang / "tokens.txt"
        ).read_text()
    assert np.abs(found["en"] - found["cy"]).max() > 1e-3
    assert all(value.equal(before[name]) for name, value in source.model.state_dict().items())


@pytest.mark.parametrize(
    "method, words, message",
    [
        ("pathways", ("whole",), "and no network for all of them: name some of en, cy"),
        ("pathways", ("0.5",), "0.5: .* has a pathway for each language, and no sizes"),
        ("pathways", ("fr",), "fr: .*averaged.pt: "),
        ("supernet", ("en",), "en: .* has no pathways of languages; .* such as 0.7, or by size"),
        ("supernet", ("1.5",), "1.5: a sparsity is between 0 and 1"),
        (
            "supernet",
            ("1kB",),
            "a budget in bytes needs weight_pruning.unit=channel, layer or head",
        ),
        ("supernet", ("../x",), "--networks ../x: is no sparsity, size or language"),
        ("gradual", ("0.3",), "0.3: .* was pruned gradually, and has the one size"),
        ("supernet", ("whole", "weight_pruning.method=none"), "has the masks of its training"),
        ("none", ("whole", "training.epochs=3"), "training.epochs=3: only overrides of weight"),
        ("none", ("whole", "--search", "a.json"), "--search a.json: is for sizes and sparsities"),
    ],
)
def test_no_such_network(method, words, message, models, pathways, tiny_corpus, tmp_path, capsys):
    path = pathways if method == "pathways" else models[method]
    common = ("--model", path, "--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path / "onnx")
    assert export(*common, "--networks", *words) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "onnx").exists()  # nothing was begun


@pytest.mark.parametrize("name", ["averaged.pt", "epoch-2.pt"])
def test_what_was_pruned_gradually_is_sparse(name, models, tiny_corpus, tmp_path):
    """Files of a training have masks as its average has."""
    common = ("--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path, "--int8", "false")
    assert export("--model", models["gradual"].with_name(name), *common) == 0
    about = read_json(tmp_path / "export.json")
    assert 0.7 < about["networks"]["whole"]["sparsity"] < 0.85
    proto = onnx.load(tmp_path / "whole" / "encoder.onnx")
    arrays = [onnx.numpy_helper.to_array(i) for i in proto.graph.initializer]
    large = [a for a in arrays if a.ndim == 2 and a.size > 400]
    assert len(large) > 4 and np.mean([np.mean(a == 0) for a in large]) > 0.6


ZEROS = "masked weights are zeros in matrices that are as large as before"


@pytest.fixture(scope="module")
def networks(models, tiny_corpus, tmp_path_factory):
    """A supernet as a whole, and its sub-network of sparsity 0.8."""
    folder = tmp_path_factory.mktemp("onnx")
    words = ("--lang-dir", tiny_corpus.lang, "--out-dir", folder, "--networks", "whole", "0.8")
    assert export("--model", models["supernet"], *words) == 0
    return folder


def runnable_size(folder, kind: str) -> int:
    """The bytes of the files that a runtime loads."""
    names = [f"{part}{kind}.onnx" for part in ("encoder", "decoder", "joiner")]
    return sum((folder / name).stat().st_size for name in names)


@pytest.mark.parametrize("kind", ["", ".int8"])
@pytest.mark.xfail(strict=True, reason=ZEROS)
def test_a_sub_network_is_smaller_to_run(networks, kind):
    small, whole = (runnable_size(networks / name, kind) for name in ("0.8", "whole"))
    assert small < 0.95 * whole


def test_a_sub_network_is_smaller_to_send(networks):
    """Compressed, by most of what its zeros take; and what is said of the files is so."""
    about = read_json(networks / "export.json")["networks"]
    for name in ("0.8", "whole"):
        for file, numbers in about[name]["files"].items():
            path = networks / name / file
            assert numbers["bytes"] == path.stat().st_size
            packed = zlib.compress(path.read_bytes(), 6)
            assert numbers["compressed_bytes"] == pytest.approx(len(packed), rel=0.1)
    small, whole = (about[name]["files"]["encoder.onnx"] for name in ("0.8", "whole"))
    assert small["compressed_bytes"] < 0.9 * whole["compressed_bytes"]


def test_a_half_export_does_not_look_finished(models, tiny_corpus, tmp_path, monkeypatch):
    common = ("--model", models["none"], "--lang-dir", tiny_corpus.lang, "--out-dir", tmp_path)
    for name in ("whole", "0.9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "encoder.int8.onnx").write_text("of an earlier model")
    (tmp_path / "export.json").write_text("of an earlier one")

    def fail(*_):
        raise UserError("the disk is full")

    monkeypatch.setattr(onnx_files, "to_onnx", fail)
    assert export(*common) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.9", "whole"]
    assert not list((tmp_path / "whole").iterdir()) and list((tmp_path / "0.9").iterdir())


def test_without_the_packages(monkeypatch, capsys, models, tiny_corpus):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert export("--model", models["none"], "--lang-dir", tiny_corpus.lang) == 1
    assert "exporting needs onnxscript" in capsys.readouterr().err


def test_other_features(tmp_path, tiny_corpus, models, capsys):
    """sherpa-onnx computes 80 mel bins, whatever the model would like."""
    content = load_checkpoint(models["none"])
    content["config"]["model"]["num_features"] = 40
    config = config_from_dict(content["config"])
    state = build_model(config.model, config.loss, content["vocab_size"]).state_dict()
    save_checkpoint({**content, "model": state}, tmp_path / "averaged.pt")
    assert export("--model", tmp_path / "averaged.pt", "--lang-dir", tiny_corpus.lang) == 1
    assert "takes 40 mel bins, and sherpa-onnx computes 80" in capsys.readouterr().err


def test_a_language_that_looks_like_a_number():
    assert wanted_of("nan").language == "nan"  # Min Nan
    assert wanted_of("inf").language == "inf"
    assert [wanted_of(word).sparsity for word in ("0.7", ".5", "0", "-1")] == [0.7, 0.5, 0, -1]
    assert wanted_of("5MB").budget.value == 5e6


def test_every_parameter_counts():
    """A part that the export forgot would not move its outputs."""
    model = make("conformer")
    parts = cut(model)
    used = {id(p) for part in parts.values() for p in part.module.parameters()}
    heads = {id(p) for head in (model.simple_am, model.simple_lm) for p in head.parameters()}
    assert {id(p) for p in model.parameters()} - heads <= used
