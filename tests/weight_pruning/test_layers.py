"""Whole layers as units: without some layers the encoder is a smaller encoder of the same kind."""

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
from asrprune.transducer.streaming_conformer import streaming_conformer
from asrprune.weight_pruning import MaskBank
from asrprune.weight_pruning.masks.cutting import cut_state
from asrprune.weight_pruning.masks.first_order import FirstOrderScores
from asrprune.weight_pruning.masks.groups import find_stack, unit_scores
from tests.weight_pruning.cut_cases import check_cut_twice, check_training_by_slices, gated

LAYERS, BINS = 4, 20
SIZES = {"dim": 8, "num_heads": 2, "num_layers": LAYERS, "ffn_dim": [6, 9, 12, 15], "dropout": 0.0}
PAIRS = [6, 7, 8, 9, 10, 11, 12, 13]
FACTORIES = {
    "conformer": (conformer, {**SIZES, "ffn_dim": PAIRS, "kernel_size": 3}),
    "streaming": (
        streaming_conformer,
        {**SIZES, "ffn_dim": PAIRS, "kernel_size": 3, "chunk_length": 2, "left_context_length": 3},
    ),
    "emformer": (emformer, {**SIZES, "left_context_length": 3, "attention_dropout": 0.0}),
    "conv_emformer": (
        emformer,
        {**SIZES, "left_context_length": 3, "attention_dropout": 0.0, "kernel_size": 3},
    ),
}


class Model(torch.nn.Module):
    """An encoder under the name that it has in a model; no parameter is zero."""

    def __init__(self, kind, sizes=None, seed=0):
        super().__init__()
        factory, usual = FACTORIES[kind]
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            self.encoder = factory(BINS, **{**usual, **(sizes or {})}).double()
            for parameter in self.encoder.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))

    def forward(self, x, x_lens):
        return self.encoder(x, x_lens)[0]


def bank_of(model, **options):
    path = f"encoder.{model.encoder.stack().name}"
    return MaskBank(model, [find_stack(model, path, **options)])


def speech(seed=0):
    x = torch.randn(2, 70, BINS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, torch.tensor([70, 41])


@pytest.mark.parametrize("kind", FACTORIES)
@pytest.mark.parametrize("dropped", [[], [0], [1, 2], [0, 1, 3]])
def test_cut_masked_and_really_smaller_are_equal(kind, dropped):
    model = Model(kind).eval()
    bank = bank_of(model)
    [group] = bank.groups
    units = {group.name: torch.tensor([place not in dropped for place in range(LAYERS)])}
    inputs = speech()
    with bank.apply(units):
        masked = model(*inputs)
    with bank.cut(units):
        inside = model(*inputs)
    assert len(model.get_submodule(group.name)) == LAYERS
    smaller = Model(kind, sizes_of(model, bank.groups, units)).eval()
    smaller.load_state_dict(cut_state(model.state_dict(), bank.groups, units))
    for found in (inside, smaller(*inputs)):
        torch.testing.assert_close(found, masked, rtol=1e-12, atol=1e-12)
    assert bank.kept_parameters(units) == sum(one.numel() for one in smaller.parameters())


@pytest.mark.parametrize("kind", [kind for kind in FACTORIES if kind != "conformer"])
def test_chunk_by_chunk_a_network_without_layers_has_a_smaller_state(kind):
    model = Model(kind).eval()
    bank = bank_of(model)
    x, x_lens = speech()
    with torch.no_grad(), bank.cut(0.5):
        encoder = model.encoder
        whole = model(x, x_lens)
        state = encoder.initial_state(2, x.device, x.dtype)
        assert state[0].shape[1] == LAYERS // 2
        parts = []
        for window, _ in windows(x, x_lens, encoder.chunk_frames, encoder.lookahead_frames):
            part, state = encoder.forward_chunk(window, state)
            parts.append(part)
    chunks = torch.cat(parts, 1)[:, : whole.size(1)]
    for one, other, length in zip(chunks, whole, encoder.output_lengths(x_lens), strict=True):
        torch.testing.assert_close(one[:length], other[:length], rtol=1e-6, atol=1e-6)


def test_cutting_twice_is_cutting_once_to_the_smaller():
    model = Model("emformer")
    bank = bank_of(model)
    once = cut_state(model.state_dict(), bank.groups, bank.blocks(0.75))
    half = bank.blocks(0.5)
    smaller = Model("emformer", sizes_of(model, bank.groups, half))
    smaller.load_state_dict(cut_state(model.state_dict(), bank.groups, half))
    check_cut_twice(once, smaller, bank_of(smaller))


@pytest.mark.parametrize("sandwich", [False, True])
def test_training_with_fewer_layers_is_training_by_masks(sandwich):
    counts = check_training_by_slices(
        lambda: Model("conv_emformer"),
        bank_of,
        speech,
        lambda step: [0.25 * (step % 4), *([0.75, 0.5] if sandwich and step % 3 else [])],
        steps=20, refresh=5, tolerance=1e-11,
    )  # fmt: skip
    assert len({int(one) for one in counts.values()}) > 1


def test_a_dropped_layer_stands_still():
    model = Model("conformer")
    bank = bank_of(model)
    optimizer = gated(model, bank, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with bank.cut(0.5):
        model(*speech()).square().sum().backward()
    optimizer.step(bank.blocks(0.5))
    kept = bank.blocks_of_layers(0.5)
    assert {bool(one) for one in kept.values()} == {True, False}
    for name, value in model.named_parameters():
        if name in kept and not kept[name]:
            assert torch.equal(value, before[name]), name


@cache
def small_bank():
    return bank_of(Model("emformer"))


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.99))
def test_masks_are_nested_and_never_empty(sparsity):
    bank = small_bank()
    [kept] = bank.blocks(sparsity).values()
    [sparser] = bank.blocks(min(1.0, sparsity + 0.2)).values()
    assert kept.any() and not (sparser & ~kept).any()
    assert abs(int(kept.sum()) - LAYERS * (1 - sparsity)) <= 1


def test_a_layer_has_the_mean_square_of_all_its_weights():
    model = Model("conformer")
    [group] = bank_of(model).groups
    parameters = dict(model.named_parameters())
    scores = unit_scores(group, parameters)
    for place, score in enumerate(scores.tolist()):
        values = torch.cat(
            [
                value.detach().flatten()
                for name, value in parameters.items()
                if name.startswith(f"{group.name}.{place}.")
            ]
        )
        assert score == pytest.approx(float(values.square().mean()), rel=1e-5)


def test_first_order_scores_of_layers():
    model = Model("emformer")
    [group] = bank_of(model).groups
    parameters = dict(model.named_parameters())
    scores, expected = FirstOrderScores([group]), torch.zeros(LAYERS, dtype=torch.float64)
    for step in range(3):
        model.zero_grad()
        model(*speech(step)).square().mean().backward()
        scores.add(parameters, None)
        for place in range(LAYERS):
            change = sum(
                (value * value.grad).sum()
                for name, value in parameters.items()
                if name.startswith(f"{group.name}.{place}.")
            )
            expected[place] += change.detach() ** 2 / 3
    found = scores.renew()[group.name]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


def test_layers_that_are_left_out_are_never_dropped():
    model = Model("conformer")
    bank = bank_of(model, exclude=["encoder.layers.0.*", "encoder.layers.2.*"])
    [group] = bank.groups
    assert group.positions == (1, 3) and group.units == 2
    with bank.cut(0.9):
        kept = list(model.encoder.layers)
    assert len(kept) == 3
    assert kept[0] is model.encoder.layers[0]
    state = cut_state(model.state_dict(), bank.groups, bank.blocks(0.9))
    numbers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    assert numbers == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["*.layers.*"]}, "no layer of encoder.layers may be dropped"),
        ({"include": ["encoder.lyers.*"]}, "no parameter has such a name"),
    ],
)
def test_what_cannot_be_dropped_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        bank_of(Model("conformer"), **options)


def test_a_shared_layer_and_an_empty_stack_are_refused():
    model = Model("conformer")
    bank = bank_of(model)
    none = {"encoder.layers": torch.zeros(LAYERS, dtype=torch.bool)}
    with pytest.raises(UserError, match="would keep no layer"), bank.cut(none):
        pass
    with pytest.raises(UserError, match="would keep no layer"):
        cut_state(model.state_dict(), bank.groups, none)
    model.encoder.layers[2] = model.encoder.layers[1]
    with pytest.raises(UserError, match=r"layers\.1.* is .*layers\.2.* too"):
        bank_of(model)
    [group] = bank_of(model, exclude=["encoder.layers.1.*"]).groups
    assert group.positions == (0, 3)
