"""Sub-networks of a step: pure, of the sizes that were asked for, known to all ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.weight_pruning.dropout import TensorDropout, scaled_dropout, with_tensor_dropout
from asrprune.weight_pruning.options import SupernetOptions
from asrprune.weight_pruning.supernet import densest, sub_networks, windows

LAYERS = [f"layer{number}" for number in range(12)]
SPARSITIES = st.sampled_from([0.0, 0.3, 0.55, 0.7, 0.9])


def drawn(options, sparsest, steps=400, **key):
    return [sub_networks(LAYERS, options, sparsest, 1, step, **key)[0] for step in range(steps)]


@given(SPARSITIES, st.sampled_from(["mean", "uniform"]), st.integers(0, 10**6), st.integers(0, 7))
def test_pure_and_within_bounds(sparsest, space, step, rank):
    options = SupernetOptions(dense=0.1, sparsest=0.1, space=space)
    [network] = sub_networks(LAYERS, options, sparsest, 5, step, rank)
    assert [network] == sub_networks(LAYERS, options, sparsest, 5, step, rank)
    assert list(network) == LAYERS
    assert all(0 <= value <= sparsest for value in network.values())
    values = np.array(list(network.values()))
    assert (np.isclose(10 * values, (10 * values).round()) | (values == sparsest)).all()


def test_a_drawn_layer_can_be_as_sparse_as_the_sparsest():
    for space in ("mean", "uniform"):
        networks = drawn(SupernetOptions(dense=0.0, sparsest=0.0, space=space), 0.95)
        values = [set(network.values()) for network in networks]
        assert any(len(one) > 1 and 0.95 in one for one in values)


def test_ranks_steps_and_micro_batches_differ():
    options = SupernetOptions(dense=0.0, sparsest=0.0)
    base = drawn(options, 0.9, 50)
    assert len({tuple(network.values()) for network in base}) > 40
    for key in ({"rank": 1}, {"number": 1}):
        others = drawn(options, 0.9, 50, **key)
        assert sum(a != b for a, b in zip(base, others, strict=True)) > 40


def test_the_ends_have_their_probabilities():
    networks = drawn(SupernetOptions(dense=0.3, sparsest=0.2, jitter=0.4), 0.9, 2000)
    values = np.array([list(network.values()) for network in networks])
    dense, sparsest = (values == 0).all(1).mean(), (values == 0.9).all(1).mean()
    # five standard deviations of 2000 draws, and the few drawn ones that happen to be an end
    assert dense == pytest.approx(0.3, abs=0.06) and sparsest == pytest.approx(0.2, abs=0.06)


@pytest.mark.parametrize("space, spread", [("mean", True), ("uniform", False)])
def test_a_common_mean_trains_every_size(space, spread):
    """Independent draws for twelve layers have nearly the same mean each time."""
    networks = drawn(SupernetOptions(dense=0, sparsest=0, space=space), 0.9)
    means = [np.mean(list(network.values())) for network in networks]
    assert (np.std(means) > 0.2) == spread
    assert np.std([list(network.values()) for network in networks], axis=1).mean() > 0.05


JITTERS = st.sampled_from([0.0, 0.04, 0.05, 0.1, 0.2, 0.25, 0.33, 1.0])


@given(
    st.floats(0.01, 0.99) | SPARSITIES.filter(bool),
    st.sampled_from(["mean", "uniform"]),
    JITTERS,
    st.integers(0, 10**6),
)
def test_no_draw_is_outside_of_the_windows(sparsest, space, jitter, step):
    options = SupernetOptions(dense=0, sparsest=0, space=space, jitter=jitter)
    found = windows(options, sparsest)
    [network] = sub_networks(LAYERS, options, sparsest, 5, step)
    assert any(set(network.values()) <= set(window) for window in found)
    for window in found:
        assert window == sorted(window)
        assert not any(set(window) < set(other) for other in found)
    assert sorted({s for window in found for s in window})[0] == 0


@pytest.mark.parametrize("sparsest", [0.25, 0.6, 0.81, 0.9])
@pytest.mark.parametrize("jitter", [0.0, 0.1, 0.15, 0.2])
def test_all_of_each_window_is_drawn(jitter, sparsest):
    """Of two layers: where pairs can be drawn about one mean, so can all sets of them."""
    options = SupernetOptions(dense=0, sparsest=0, jitter=jitter)
    drawn = {
        tuple(sub_networks("ab", options, sparsest, 1, step)[0].values()) for step in range(8000)
    }
    found = windows(options, sparsest)
    assert drawn == {(a, b) for window in found for a in window for b in window}


def test_independent_layers_have_one_window():
    found = windows(SupernetOptions(space="uniform"), 0.35)
    assert found == [[0.0, 0.1, 0.2, 0.3, 0.35]]


def test_a_sandwich_ends_with_the_dense_one():
    options = SupernetOptions(sampling="sandwich", random=2)
    networks = sub_networks(LAYERS, options, 0.8, 1, 3)
    assert len(networks) == 4
    assert set(networks[-1].values()) == {0.0} and set(networks[-2].values()) == {0.8}
    assert networks[0] != networks[1]
    assert sub_networks(LAYERS, options, 0.0, 1, 3) == [dict.fromkeys(LAYERS, 0.0)]


def test_the_densest_is_the_least_sparsity_of_each_layer():
    networks = [{"a": 0.3, "b": 0.9}, {"a": 0.5, "b": 0.1}]
    assert densest(networks) == {"a": 0.3, "b": 0.1}


def test_probabilities_of_more_than_one():
    with pytest.raises(UserError, match="supernet.dense=0.8 and supernet.sparsest=0.3: together"):
        check(SupernetOptions(dense=0.8, sparsest=0.3), "supernet.")


def test_dropout_is_scaled_and_comes_back():
    module = torch.nn.Sequential(
        torch.nn.Dropout(0.4),
        torch.nn.Dropout1d(0.2),
        torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1),
        torch.nn.LSTM(4, 4, 2, dropout=0.3),
    )

    def rates():
        attention, lstm = module[2].self_attn.dropout, module[3].dropout
        return [module[0].p, module[1].p, module[2].dropout1.p, attention, lstm]

    before = rates()
    with pytest.raises(KeyError), scaled_dropout(module, 0.25):
        assert rates() == pytest.approx([0.25 * rate for rate in before])
        raise KeyError
    assert rates() == before == [0.4, 0.2, 0.1, 0.1, 0.3]


def layers_with_dropout():
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Sequential(torch.nn.Dropout(0.4)))


def test_a_dropout_with_a_tensor_drops_as_many_and_keeps_the_mean():
    module = with_tensor_dropout(layers_with_dropout())
    dropout = module[1][0]
    assert isinstance(dropout, TensorDropout) and module.state_dict().keys() == {
        "0.weight",
        "0.bias",
    }
    x = torch.ones(100_000, requires_grad=True)
    for factor, share in ((1.0, 0.4), (0.5, 0.2), (0.0, 0.0), (2.5, 1.0)):
        with scaled_dropout(module, factor):
            out = dropout(x)
        assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.01)
        assert out.mean().item() == pytest.approx(1.0 if share < 1 else 0.0, abs=0.02)
        [gradient] = torch.autograd.grad(out.sum(), x)
        assert gradient.equal(out.detach())
    assert dropout.p.item() == pytest.approx(0.4)
    assert dropout.eval()(x) is x
    assert dropout.train()(x.bfloat16()).dtype == torch.bfloat16
    shared = torch.nn.Dropout(0.2)
    both = with_tensor_dropout(torch.nn.Sequential(shared, torch.nn.Linear(2, 2), shared))
    assert both[0] is both[2] and isinstance(both[0], TensorDropout)
    alone = with_tensor_dropout(torch.nn.Dropout(0.1).eval())
    assert isinstance(alone, TensorDropout) and not alone.training


@pytest.mark.parametrize("tensor, graphs", [(False, 3), (True, 1)])
def test_a_compiled_module_keeps_one_graph(tensor, graphs):
    """For all scales of its dropout; with numbers, torch compiles for each of them."""
    module, made = layers_with_dropout(), []
    if tensor:
        with_tensor_dropout(module)

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(module, backend=backend)
    for factor in (1.0, 0.7, 0.3, 1.0):
        with scaled_dropout(module, factor):
            compiled(torch.ones(4, 8))
    assert len(made) == graphs


def test_backward_of_a_compiled_module_may_run_later():
    module = with_tensor_dropout(layers_with_dropout())
    torch.compiler.reset()
    compiled = torch.compile(module, backend="aot_eager")
    with scaled_dropout(module, 0.5):
        out = compiled(torch.ones(4, 8))
    out.sum().backward()
    share = (out != 0).sum(0) / (1 - 0.2)
    torch.testing.assert_close(module[0].bias.grad, share)
