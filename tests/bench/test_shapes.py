"""Widths of a shape with random weights: what is written, what it says, and what is refused."""

import re

import pytest
import torch

from asrprune import cli
from asrprune.bench import shapes
from asrprune.config import load_config
from asrprune.export.in_turn import load_in_turn
from asrprune.transducer.model import build_model

CONFIG = """
model:
  encoder: asrprune.transducer.{encoder}
  encoder_options: {{dim: 32, num_layers: 2, num_heads: 2, ffn_dim: 64, {options}}}
  predictor_options: {{dim: 16}}
  joiner_dim: 16
weight_pruning:
  method: supernet
"""
EMFORMER = ("emformer:emformer", "left_context_length: 8")


def write_config(folder, encoder, options=""):
    path = folder / "shape.yaml"
    path.write_text(CONFIG.format(encoder=encoder, options=options))
    return path


def cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


@pytest.mark.parametrize(
    "shape, per", [(EMFORMER, "chunk"), (("conformer:conformer", "kernel_size: 5"), "second of")]
)
def test_the_table(shape, per, tmp_path, capsys, monkeypatch):
    """A row for each width and type; the bytes are those of the files that are loaded."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("sherpa_onnx")
    measured = {}

    def measure(networks, folder, samples, rounds):
        for name in networks:
            for kind in ("", ".int8"):
                files = (f"encoder{kind}.onnx", "decoder.onnx", f"joiner{kind}.onnx")
                paths = [folder / name / file for file in files]
                measured[name, kind] = sum(path.stat().st_size for path in paths)
        # what random weights would say without the bias, they do not say with it
        recognisers = load_in_turn(networks, folder)
        for recogniser in recognisers.values():
            assert recogniser.recognise(samples).text == ""
        rows = original(networks, folder, samples, rounds)
        assert all(row["texts"] == [""] * 2 for row in rows)
        return rows

    original = shapes.measure
    monkeypatch.setattr(shapes, "measure", measure)
    words = ["--widths", "1.0", "0.25", "--seconds", "2", "--rounds", "2", "--vocab-size", "20"]
    path = write_config(tmp_path, *shape)
    assert cli.main(["bench", "shapes", "--config", str(path), *words, "model.joiner_dim=24"]) == 0
    header, _, *rows = cells(capsys.readouterr().out)
    assert header[6].startswith(f"ms a {per}")
    assert [row[:3] for row in rows] == [
        [width, channels, kind]
        for width, channels in (("1", "64"), ("0.25", "16"))
        for kind in ("float32", "int8")
    ]
    whole, int8, small, small_int8 = rows
    for row, key in zip(rows, measured, strict=True):
        assert row[4] == f"{measured[key] / 1e6:.2f}" and float(row[6]) > 0
    assert whole[5] == int8[5] == whole[7] == int8[7] == "1.000"
    for row, kind in ((small, ""), (small_int8, ".int8")):
        assert row[5] == f"{measured['0.25', kind] / measured['1', kind]:.3f}"
        assert float(row[5]) < 1


def test_only_channels_and_the_heads_of_the_training_are_missing(tmp_path):
    config = shapes.channel_config(write_config(tmp_path, *EMFORMER), [])
    assert config.weight_pruning.method == "none"
    source = shapes.random_source(config, 20)
    model = build_model(config.model, config.loss, 20)
    heads = sum(p.numel() for h in (model.simple_am, model.simple_lm) for p in h.parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert shapes.deployed_parameters(source.model) == whole - heads
    # a new layer passes its input through: its last matrices are zeros, which nothing would check
    assert not model.encoder.emformer.emformer_layers[0].pos_ff[4].weight.any()
    assert all(one.any() for one in source.model.parameters() if one.ndim > 1)


def test_noise_is_the_same_each_time():
    assert shapes.noise(1, 2).shape == (32000,)
    assert (shapes.noise(1, 2) == shapes.noise(1, 2)).all()
    assert (shapes.noise(1, 2) != shapes.noise(2, 2)).any()
    assert abs(torch.from_numpy(shapes.noise(1, 2)).std().item() - shapes.LOUDNESS) < 0.01


@pytest.mark.parametrize(
    "words, message",
    [
        (("--widths", "0"), "--widths 0: is no share. Give numbers above 0, at most 1"),
        (("--widths", "1.5"), "--widths 1.5: is no share"),
        (("--widths", "half"), "--widths half: is no share"),
        (("--widths", "nan"), "--widths nan: is no share"),
        (("--widths", "0.5", "1", "0.50"), "--widths 0.50: is named twice"),
        (("weight_pruning.unit=block",), "weight_pruning.unit=block: only channels are cut here"),
        (("--widths", "1", "weight_pruning.method=gradual"), "method=gradual: only channels"),
        (("model.num_features=40",), "num_features=40: sherpa-onnx computes 80"),
        (("--vocab-size", "3"), "--vocab-size 3: must be above 3"),
        (("--widths", "1", "model.joinr_dim=3"), "joinr_dim"),
    ],
)
def test_what_is_refused(words, message, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("sherpa_onnx")
    path = write_config(tmp_path, *EMFORMER)
    assert cli.main(["bench", "shapes", "--config", str(path), *words]) == 1
    assert re.search(re.escape(message), capsys.readouterr().err)


def test_the_multiple_counts(tmp_path):
    path = write_config(tmp_path, *EMFORMER)
    config = shapes.channel_config(path, ["weight_pruning.multiple=4", "training.epochs=3"])
    assert config.weight_pruning.multiple == 4 and config.training.epochs == 3
    assert load_config(path).weight_pruning.method == "supernet"
