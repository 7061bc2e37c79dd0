"""``transducer_loss`` as training calls it: padding, batches, empty transcripts, precision."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.base.errors import UserError
from asrprune.transducer.loss import resolve_backend, transducer_loss
from asrprune.transducer.options import LossOptions
from tests.transducer.loss_cases import SmallJoiner, random_batch

TOPOLOGIES = pytest.mark.parametrize("topology", ["regular", "modified"])


def losses(batch, joiner=None, **options):
    options = LossOptions(**{"backend": "torch", **options})
    return transducer_loss(
        *batch.scores(), joiner or SmallJoiner(), batch.y, batch.t_lens, batch.y_lens, options
    )


def backward(batch, joiner=None, **options):
    """Losses and the gradients of all four scores."""
    batch = batch.with_gradients()
    loss = losses(batch, joiner, **options)
    (loss.simple + loss.pruned).sum().backward()
    return loss, [scores.grad for scores in batch.scores()]


@TOPOLOGIES
def test_junk_in_the_padding_changes_nothing(topology):
    """Frames and symbols beyond every length too; NaN, infinity and symbols that do not exist."""
    t_lens, y_lens = [12, 9, 15], [4, 0, 6]
    clean = random_batch(t_lens, y_lens, extra=3)
    junk = replace(clean, **{k: getattr(clean, k).clone() for k in ("am", "lm", "a", "b", "y")})
    for b, (frames, symbols) in enumerate(zip(t_lens, y_lens, strict=True)):
        for x in (junk.am, junk.a):
            x[b, frames:] = torch.nan
        for x in (junk.lm, junk.b):
            x[b, symbols + 1 :] = torch.inf
        junk.y[b, symbols:] = 10**6 if b else -5
    expected, gradients = backward(clean, topology=topology)
    found, junk_gradients = backward(junk, topology=topology)
    assert torch.equal(found.simple, expected.simple)
    assert torch.equal(found.pruned, expected.pruned)
    for one, two in zip(gradients, junk_gradients, strict=True):
        assert torch.equal(one, two)
    for b, (frames, symbols) in enumerate(zip(t_lens, y_lens, strict=True)):
        assert not junk_gradients[0][b, frames:].any() and not junk_gradients[2][b, frames:].any()
        assert not junk_gradients[1][b, symbols + 1 :].any()
        assert not junk_gradients[3][b, symbols + 1 :].any()


@given(
    lengths=st.lists(st.tuples(st.integers(1, 14), st.integers(0, 14)), min_size=2, max_size=4),
    prune_range=st.integers(1, 6),
    modified=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_batch_equals_its_utterances_one_by_one(lengths, prune_range, modified, seed):
    topology = "modified" if modified else "regular"
    lengths = [(t, min(s, t) if modified else s) for t, s in lengths]
    batch = random_batch(*map(list, zip(*lengths, strict=True)), seed=seed, dtype=torch.float64)
    options = {"topology": topology, "prune_range": prune_range, "delay_penalty": 0.01}
    joiner = SmallJoiner(dtype=torch.float64)
    together, gradients = backward(batch, joiner, **options)
    for index in range(len(lengths)):
        alone, own_gradients = backward(batch.of(index), joiner, **options)
        torch.testing.assert_close(alone.simple[0], together.simple[index])
        torch.testing.assert_close(alone.pruned[0], together.pruned[index])
        for own, shared in zip(own_gradients, gradients, strict=True):
            torch.testing.assert_close(own[0], shared[index, : own.shape[1]])


@pytest.mark.parametrize("y_lens", [[0, 0], [0, 3]], ids=["all", "some"])
@TOPOLOGIES
def test_empty_transcripts(y_lens, topology):
    batch = random_batch([7, 5], y_lens, dtype=torch.float64)
    joiner = SmallJoiner(dtype=torch.float64)
    loss, gradients = backward(batch, joiner, topology=topology, lm_scale=0.0)
    blanks = (batch.am[0] + batch.lm[0, 0]).log_softmax(1)[:, 0].sum()
    torch.testing.assert_close(loss.simple[0], -blanks)
    blanks = joiner(batch.a[0], batch.b[0, 0]).log_softmax(1)[:, 0].sum()
    torch.testing.assert_close(loss.pruned[0], -blanks)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_fewer_frames_than_symbols_is_legal_in_the_regular_topology():
    batch = random_batch([2, 1], [9, 7])
    loss, gradients = backward(batch)
    assert loss.simple.isfinite().all() and loss.pruned.isfinite().all()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_an_alignment_losses_are_infinite_and_other_utterances_unharmed():
    batch = random_batch([3, 8], [5, 4])
    joiner = SmallJoiner()
    loss, gradients = backward(batch, joiner, topology="modified")
    assert loss.simple[0] == torch.inf and loss.pruned[0] == torch.inf
    assert not any(gradient[0].any() for gradient in gradients)
    alone, own = backward(batch.of(1), topology="modified")
    torch.testing.assert_close(loss.pruned[1], alone.pruned[0])
    torch.testing.assert_close(gradients[2][1], own[2][0])
    assert joiner.output.weight.grad.isfinite().all()


def test_gradients_go_where_they_belong():
    batch = random_batch([10, 8], [5, 3]).with_gradients()
    joiner = SmallJoiner()
    parameters = list(joiner.parameters())
    inputs = [*batch.scores(), *parameters]
    loss = losses(batch, joiner)
    of_simple = torch.autograd.grad(loss.simple.sum(), inputs, retain_graph=True, allow_unused=True)
    of_pruned = torch.autograd.grad(loss.pruned.sum(), inputs, allow_unused=True)
    assert [g is not None for g in of_simple] == [True, True, False, False, False, False]
    assert [g is not None for g in of_pruned] == [False, False, True, True, True, True]


def test_training_lowers_both_losses():
    batch = random_batch([12, 9], [4, 5]).with_gradients()
    joiner = SmallJoiner()
    optimizer = torch.optim.Adam([*batch.scores(), *joiner.parameters()], lr=0.05)
    history = []
    for _ in range(40):
        loss = losses(batch, joiner)
        history.append(torch.stack([loss.simple.sum(), loss.pruned.sum()]))
        optimizer.zero_grad()
        (0.5 * loss.simple + loss.pruned).sum().backward()
        optimizer.step()
    assert (history[-1] < 0.3 * history[0]).all()


def test_autocast_gives_float32_losses_near_the_exact_ones():
    batch = random_batch([40, 33], [12, 9], dim=32)
    joiner = SmallJoiner(dim=32)
    exact = losses(batch, joiner)
    low = replace(batch, **{k: getattr(batch, k).bfloat16() for k in ("am", "lm", "a", "b")})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = backward(low, joiner)
    assert loss.simple.dtype == loss.pruned.dtype == torch.float32
    torch.testing.assert_close(loss.simple, exact.simple, rtol=0.02, atol=0)
    torch.testing.assert_close(loss.pruned, exact.pruned, rtol=0.05, atol=0)
    assert all(g.dtype == torch.bfloat16 and g.isfinite().all() for g in gradients)


def test_two_runs_give_the_same_bits():
    batch = random_batch([20, 17], [8, 9])
    first, second = backward(batch), backward(batch)
    assert torch.equal(first[0].pruned, second[0].pruned)
    assert all(torch.equal(x, y) for x, y in zip(first[1], second[1], strict=True))


def test_validation_needs_no_gradients():
    batch = random_batch([11, 7], [4, 4])
    joiner = SmallJoiner()
    expected = losses(batch.with_gradients(), joiner)
    with torch.no_grad():
        loss = losses(batch, joiner)
    assert torch.equal(loss.simple, expected.simple) and torch.equal(loss.pruned, expected.pruned)


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ({"backend": "torhc"}, ("loss.backend", "'torch'")),
        ({"topology": "modifed"}, ("loss.topology", "'modified'")),
        ({"prune_range": 0}, ("loss.prune_range",)),
        ({"lm_scale": 0.6, "am_scale": 0.5}, ("loss.lm_scale", "loss.am_scale")),
        ({"am_scale": -0.1}, ("loss.am_scale",)),
        ({"delay_penalty": -1.0}, ("loss.delay_penalty",)),
    ],
)
def test_options_without_a_meaning_are_refused_by_name(option, names):
    with pytest.raises(UserError) as error:
        losses(random_batch([3], [2]), **option)
    assert all(name in str(error.value) for name in names)


def test_torch_is_always_there():
    assert resolve_backend("torch") == "torch"
    assert resolve_backend("auto") in ("torch", "k2")
