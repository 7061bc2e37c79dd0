"""Budgets in bytes and in multiply-adds: as people write them, what they cost, what fits."""

import argparse

import numpy as np
import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.config import config_from_dict
from asrprune.export.budget import (
    BYTES,
    MILLISECONDS,
    MULTIPLY_ADDS,
    WEIGHTS,
    Amount,
    Measure,
    encoder_work,
    parse_amount,
)
from asrprune.training.banks import make_bank
from asrprune.transducer.model import build_model

SMALL = {"dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64}
ENCODERS = {
    "conformer": {
        "encoder": "asrprune.transducer.conformer:conformer",
        "encoder_options": {**SMALL, "kernel_size": 7},
    },
    "emformer": {
        "encoder": "asrprune.transducer.emformer:emformer",
        "encoder_options": {**SMALL, "segment_length": 4, "right_context_length": 1},
    },
}


def model_and_bank(encoder: str, **options):
    config = config_from_dict(
        {"model": ENCODERS[encoder], "weight_pruning": {"method": "supernet", **options}}
    )
    torch.manual_seed(0)
    model = build_model(config.model, config.loss, 20)
    return model, make_bank(model, config.weight_pruning)


@pytest.fixture(scope="module")
def built():
    return {name: model_and_bank(name) for name in ENCODERS}


def test_amounts_are_written_as_people_do():
    written = ("5MB", "0.5 MB", "800kB", "12B", "120MMAC", "0.1GMAC", "7kMAC", "1.25ms")
    amounts = [parse_amount(text) for text in written]
    assert [amount.value for amount in amounts] == [5e6, 5e5, 8e5, 12, 1.2e8, 1e8, 7e3, 1.25]
    assert [amount.unit for amount in amounts] == [BYTES] * 4 + [MULTIPLY_ADDS] * 3 + [MILLISECONDS]
    for text in ("5", "MB", "0MB", "5 MAC", "-1MB", "5MBx"):
        with pytest.raises(argparse.ArgumentTypeError, match="is no size, such as 800kB or 5MB, "):
            parse_amount(text)
    for amount in amounts[:3] + amounts[4:]:
        assert parse_amount(amount.written(between="")) == amount
    assert str(Amount(1.2345e8, MULTIPLY_ADDS)) == "123.450 MMAC"


def test_an_encoder_layer_is_used_once_a_frame(built):
    """25 frames of 40 ms a second; a streaming one computes each segment's right context too."""
    for encoder, frames in (("conformer", 25), ("emformer", 25 * (4 + 1) / 4)):
        model, bank = built[encoder]
        uses, rest = encoder_work(model, bank)
        assert uses == dict.fromkeys((layer.name for layer in bank.layers), frames)
        assert model.training
        weights = {n: p for n, p in model.encoder.named_parameters() if p.ndim > 1}
        pruned = {layer.name.removeprefix("encoder.") for layer in bank.layers}
        if encoder == "emformer":  # its input layer alone
            assert rest == 25 * sum(p.numel() for n, p in weights.items() if n not in pruned)


@pytest.mark.parametrize("unit", [WEIGHTS, MULTIPLY_ADDS])
def test_the_cost_of_many_is_that_of_each(unit, built):
    model, bank = built["conformer"]
    measure, choices = Measure(model, bank, unit), [0.0, 0.1, 0.5, 0.8]
    names = [layer.name for layer in bank.layers]
    rows = np.random.default_rng(0).choice(choices, (20, len(names)))
    each = [measure.of(dict(zip(names, row, strict=True))) for row in rows]
    assert measure.cost(choices)(rows).tolist() == pytest.approx(each, rel=1e-12)
    assert measure.of(0.5) < measure.of(0.0)


def test_multiply_adds_are_those_of_what_is_kept(built):
    model, bank = built["emformer"]
    measure = Measure(model, bank, MULTIPLY_ADDS)
    total = sum(layer.rows * layer.columns for layer in bank.layers)
    dropped = measure.of(0.0) - measure.of(0.7)
    assert dropped == pytest.approx(31.25 * total * (1 - bank.density(0.7)))
    assert measure.of(1.0) == encoder_work(model, bank)[1]


@pytest.mark.parametrize("unit", [WEIGHTS, MULTIPLY_ADDS])
def test_the_least_sparsity_within_a_budget(unit, built):
    measure = Measure(*built["conformer"], unit)
    costs = [measure.of(level / 250) for level in range(250)]
    for budget in (costs[0], costs[40], costs[120] + 1, costs[249]):
        first = next(level for level, cost in enumerate(costs) if cost <= budget)
        assert measure.within(budget, 0.996) == first / 250
    # the sparsest that was trained, of the nearest level, can be had
    assert measure.within(measure.of(0.95), 0.95) == 0.952 == 238 / 250
    assert measure.within(costs[249], 1.0) == 249 / 250
    with pytest.raises(UserError, match="--some: 0.001 M.* are less than the smallest"):
        measure.within(1e3, 0.9, "--some")


def test_work_outside_the_encoder_is_not_guessed():
    model, bank = model_and_bank("conformer", include=["encoder.layers.*", "joiner.*_proj.weight"])
    assert Measure(model, bank, WEIGHTS).of(0.5)
    with pytest.raises(UserError, match=r"of joiner.encoder_proj.weight \(2 of .* a sparsity"):
        Measure(model, bank, MULTIPLY_ADDS)


@pytest.mark.parametrize("unit", [BYTES, MILLISECONDS])
def test_blocks_have_no_budgets_of_what_a_runtime_does(unit, built):
    with pytest.raises(
        UserError, match=f"in {unit} needs weight_pruning.unit=channel, layer or head: a runtime"
    ):
        Measure(*built["conformer"], unit)
