"""Heads of attention as units: head ``j`` of all layers goes together."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.training.banks import sizes_of
from asrprune.transducer.conformer import conformer
from asrprune.transducer.emformer import emformer
from asrprune.transducer.encoder import windows
from asrprune.weight_pruning import MaskBank
from asrprune.weight_pruning.masks.cutting import cut_state
from asrprune.weight_pruning.masks.first_order import FirstOrderScores
from asrprune.weight_pruning.masks.groups import find_heads, unit_scores
from tests.weight_pruning.cut_cases import (
    check_cut_twice,
    check_gradients_of_dropped_units,
    check_training_by_slices,
    gated,
)
from tests.weight_pruning.test_layers import BINS, FACTORIES, LAYERS, Model, speech

HEADS = 4
SIZES = {"dim": 16, "num_heads": HEADS, "num_layers": LAYERS}
STREAMING = [kind for kind in FACTORIES if kind != "conformer"]


def model_of(kind, **sizes):
    return Model(kind, {**SIZES, **sizes})


def bank_of(model, **options):
    heads = model.encoder.heads()
    rows = {f"encoder.{name}": times for name, times in heads.rows.items()}
    columns = [f"encoder.{name}" for name in heads.columns]
    return MaskBank(model, [find_heads(model, "heads", rows, columns, heads.size, **options)])


def units_of(dropped):
    return {"heads": torch.tensor([head not in dropped for head in range(HEADS)])}


def smaller_of(kind, model, bank, units):
    sizes = {**SIZES, **sizes_of(model, bank.groups, units)}
    smaller = Model(kind, sizes)
    smaller.load_state_dict(cut_state(model.state_dict(), bank.groups, units))
    return smaller


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("dropped", [[], [0], [1, 2], [0, 1, 3]])
def test_cut_masked_and_really_smaller_are_equal(kind, dropped):
    model = model_of(kind).eval()
    bank, units, inputs = bank_of(model), units_of(dropped), speech()
    with bank.apply(units):
        masked = model(*inputs)
    with bank.cut(units):
        inside = model(*inputs)
    smaller = smaller_of(kind, model, bank, units).eval()
    for found in (inside, smaller(*inputs)):
        torch.testing.assert_close(found, masked, rtol=1e-12, atol=1e-12)
    assert bank.kept_parameters(units) == sum(one.numel() for one in smaller.parameters())
    for name in smaller.encoder.heads().columns:
        left = smaller.encoder.get_parameter(name).shape[1]
        assert left == 16 // HEADS * (HEADS - len(dropped))


@pytest.mark.parametrize("kind", FACTORIES)
def test_gradients_of_dropped_heads(kind):
    model = model_of(kind).eval()
    bank, units = bank_of(model), units_of([1, 3])
    dropped = (~units["heads"]).repeat_interleave(16 // HEADS)
    columns = {f"encoder.{name}": dropped for name in model.encoder.heads().columns}
    check_gradients_of_dropped_units(model, bank, speech(), units, columns)


@pytest.mark.parametrize("kind", STREAMING)
def test_chunk_by_chunk_a_network_with_fewer_heads_has_a_smaller_state(kind):
    model = model_of(kind).eval()
    bank, units = bank_of(model), units_of([0, 2, 3])
    smaller = smaller_of(kind, model, bank, units).eval()
    x, x_lens = speech()
    with torch.no_grad(), bank.cut(units):
        whole = model(x, x_lens)
        state = model.encoder.initial_state(2, x.device, x.dtype)
    encoder = smaller.encoder
    assert [part.shape for part in encoder.initial_state(2, x.device, x.dtype)] == [
        part.shape for part in state
    ]
    assert state[0].shape[3] == 16 // HEADS and state[2].shape[3] == 16
    parts = []
    with torch.no_grad():
        for window, _ in windows(x, x_lens, encoder.chunk_frames, encoder.lookahead_frames):
            part, state = encoder.forward_chunk(window, state)
            parts.append(part)
    chunks = torch.cat(parts, 1)[:, : whole.size(1)]
    for one, other, length in zip(chunks, whole, encoder.output_lengths(x_lens), strict=True):
        torch.testing.assert_close(one[:length], other[:length], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["conformer", "emformer"])
def test_cutting_twice_is_cutting_once_to_the_smaller(kind):
    model = model_of(kind)
    bank = bank_of(model)
    once = cut_state(model.state_dict(), bank.groups, bank.blocks(0.75))
    smaller = smaller_of(kind, model, bank, bank.blocks(0.5))
    check_cut_twice(once, smaller, bank_of(smaller))


@pytest.mark.parametrize("kind", ["conformer", "emformer"])
def test_training_with_fewer_heads_is_training_by_masks(kind):
    counts = check_training_by_slices(
        lambda: model_of(kind),
        bank_of,
        speech,
        lambda step: [0.25 * (step % 4), *([0.75, 0.5] if step % 3 == 2 else [])],
        steps=20, refresh=5, tolerance=1e-11,
    )  # fmt: skip
    assert all(one.unique().numel() > 1 for one in counts.values())


def test_a_dropped_head_stands_still_in_all_layers():
    model = model_of("conformer")
    bank = bank_of(model)
    optimizer = gated(model, bank, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with bank.cut(0.5):
        model(*speech()).square().sum().backward()
    optimizer.step(bank.blocks(0.5))
    masks = bank.masks(0.5)
    assert len(masks) == 3 * LAYERS
    for name, mask in masks.items():
        assert int(mask.sum()) * 2 == mask.numel()
        moved = model.state_dict()[name] != before[name]
        assert not moved[~mask].any() and moved[mask].any(), name


@cache
def small_bank():
    return bank_of(model_of("emformer"))


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.99))
def test_masks_are_nested_and_never_empty(sparsity):
    bank = small_bank()
    [kept] = bank.blocks(sparsity).values()
    [sparser] = bank.blocks(min(1.0, sparsity + 0.2)).values()
    assert kept.any() and not (sparser & ~kept).any()


@pytest.mark.parametrize("kind", ["conformer", "emformer"])
def test_scores_are_those_of_all_weights_of_a_head(kind):
    model = model_of(kind)
    [group] = bank_of(model).groups
    model(*speech()).square().mean().backward()
    squares, changes, size = torch.zeros(HEADS), torch.zeros(HEADS), 0
    for name, value in model.named_parameters():
        if "out_proj.weight" in name:
            heads = value.unflatten(1, (HEADS, -1)).transpose(0, 1)
            gradients = value.grad.unflatten(1, (HEADS, -1)).transpose(0, 1)
        elif "in_proj" in name or "emb_to" in name:
            times = {"in_proj_weight": 3, "in_proj_bias": 3}.get(name.split(".")[-1], 1)
            times = 2 if "key_value" in name else times
            heads, gradients = (
                one.unflatten(0, (times, HEADS, -1)).transpose(0, 1) for one in (value, value.grad)
            )
        else:
            continue
        size += heads[0].numel()
        squares += heads.detach().flatten(1).square().sum(1)
        changes += (heads * gradients).detach().flatten(1).sum(1)
    parameters = dict(model.named_parameters())
    torch.testing.assert_close(
        unit_scores(group, parameters), squares.float() / size, rtol=1e-5, atol=0
    )
    scores = FirstOrderScores([group])
    scores.add(parameters, None)
    torch.testing.assert_close(
        scores.renew()["heads"], changes.square().float(), rtol=1e-3, atol=1e-12
    )


@pytest.mark.parametrize("factory", [conformer, emformer])
def test_narrow_heads_are_a_model_of_their_own(factory):
    model = factory(BINS, dim=16, num_heads=3, head_dim=4, num_layers=2, ffn_dim=8)
    model(torch.randn(1, 40, BINS), torch.tensor([40]))[0].sum().backward()
    assert model.heads().size == 4
    for name in model.heads().columns:
        assert model.get_parameter(name).shape == (16, 12)
    for sizes in ({"head_dim": 5}, {"head_dim": 0}, {"head_dim": 8}):
        with pytest.raises(UserError, match="head_dim=.: an even number of at least 2"):
            factory(BINS, dim=16, num_heads=3, num_layers=1, ffn_dim=8, **sizes)


def test_heads_go_together_or_not_at_all():
    model = model_of("conformer")
    with pytest.raises(UserError, match=r"leave encoder\.layers\.0.*all layers have the same"):
        bank_of(model, exclude=["encoder.layers.0.*"])
    model.encoder.layers[1].self_attn = model.encoder.layers[0].self_attn
    with pytest.raises(UserError, match=r"layers\.0.* is .*layers\.1.* too"):
        bank_of(model)
