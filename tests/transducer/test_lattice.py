"""The lattice against a brute-force sum over alignments, and its occupations against autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from asrprune.transducer.lattice import delay_bonus, lattice_loss, solve
from tests.transducer.loss_cases import brute_force, random_arcs

TOPOLOGIES = pytest.mark.parametrize("modified", [False, True], ids=["regular", "modified"])


def cell_by_cell(px, py, modified):
    """The recursion of the paper through autograd, one utterance: px (S, T), py (S + 1, T)."""
    symbols, frames = px.shape
    p = {(0, 0): torch.zeros((), dtype=px.dtype)}
    for t in range(frames + 1):
        for s in range(symbols + 1):
            arcs = []
            if t > 0 and (s, t - 1) in p:
                arcs.append(p[s, t - 1] + py[s, t - 1])
            if modified and (s - 1, t - 1) in p:
                arcs.append(p[s - 1, t - 1] + px[s - 1, t - 1])
            if not modified and t < frames and (s - 1, t) in p:
                arcs.append(p[s - 1, t] + px[s - 1, t])
            if arcs:
                p[s, t] = torch.logsumexp(torch.stack(arcs), 0)
    return p[symbols, frames]


def column_by_column(px, py, modified):
    """The recursion frame by frame in float64, one utterance."""
    column = torch.full((px.shape[0] + 1,), -math.inf, dtype=torch.float64)
    column[0] = 0.0
    for x, y in zip(px.double().unbind(1), py.double().unbind(1), strict=True):
        if modified:
            moved = functional.pad(column[:-1] + x, (1, 0), value=-math.inf)
            column = torch.logaddexp(column + y, moved)
        else:
            rising = functional.pad(x, (1, 0)).cumsum(0)
            column = rising + torch.logcumsumexp(column - rising, 0) + y
    return column[-1]


@TOPOLOGIES
@pytest.mark.parametrize("symbols", range(5))
@pytest.mark.parametrize("frames", range(1, 6))
def test_equals_brute_force(symbols, frames, modified):
    px, py = random_arcs(1, symbols, frames, seed=10 * symbols + frames)
    loss, _ = lattice_loss(px, py, torch.tensor([frames]), torch.tensor([symbols]), modified)
    assert -loss.item() == pytest.approx(brute_force(px[0], py[0], modified), abs=1e-9)


@TOPOLOGIES
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_lengths_in_a_batch_equal_the_recursion_of_each(modified, data):
    t_lens = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    y_lens = [data.draw(st.integers(0, min(t, 4) if modified else 4)) for t in t_lens]
    px, py = random_arcs(len(t_lens), 5, 7, seed=data.draw(st.integers(0, 100)))
    for b, (frames, symbols) in enumerate(zip(t_lens, y_lens, strict=True)):
        px[b, symbols:], px[b, :, frames:] = math.nan, math.nan  # never read
        py[b, symbols + 1 :], py[b, :, frames:] = math.nan, math.nan
    px.requires_grad_(), py.requires_grad_()
    loss, occupations = lattice_loss(px, py, torch.tensor(t_lens), torch.tensor(y_lens), modified)
    expected = torch.stack(
        [
            cell_by_cell(px[b, :symbols, :frames], py[b, : symbols + 1, :frames], modified)
            for b, (frames, symbols) in enumerate(zip(t_lens, y_lens, strict=True))
        ]
    )
    torch.testing.assert_close(-loss, expected, rtol=0, atol=1e-9)
    gradients = torch.autograd.grad(
        expected.sum(), [px, py], allow_unused=True, materialize_grads=True
    )
    torch.testing.assert_close(occupations.px, gradients[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(occupations.py, gradients[1], rtol=0, atol=1e-9)
    loss.sum().backward()
    torch.testing.assert_close(px.grad, -gradients[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(py.grad, -gradients[1], rtol=0, atol=1e-9)


@TOPOLOGIES
def test_gradcheck(modified):
    px, py = random_arcs(3, 3, 4, seed=3)
    t_lens, y_lens = torch.tensor([4, 3, 2]), torch.tensor([3, 0, 2])

    def loss(px, py):
        return lattice_loss(px, py, t_lens, y_lens, modified)[0]

    assert torch.autograd.gradcheck(loss, (px.requires_grad_(), py.requires_grad_()))


def test_occupations_are_probabilities():
    px, py = random_arcs(3, 6, 9, seed=4)
    t_lens, y_lens = torch.tensor([9, 5, 7]), torch.tensor([6, 6, 0])
    _, occupations = lattice_loss(px, py, t_lens, y_lens)
    # every frame is left by exactly one blank, every symbol is emitted exactly once
    frames = (torch.arange(9) < t_lens[:, None]).double()
    symbols = (torch.arange(6) < y_lens[:, None]).double()
    torch.testing.assert_close(occupations.py.sum(1), frames)
    torch.testing.assert_close(occupations.px.sum(2), symbols)


@TOPOLOGIES
def test_two_thousand_frames_keep_float32_precision(modified):
    generator = torch.Generator().manual_seed(5)
    # sums over 2,000 such frames reach -10,000, where float32 is 0.001 coarse
    px = -10 * torch.rand(2, 300, 2000, generator=generator)
    py = -10 * torch.rand(2, 301, 2000, generator=generator)
    t_lens, y_lens = torch.tensor([2000, 1500]), torch.tensor([300, 250])
    expected = torch.stack(
        [
            column_by_column(px[0], py[0], modified),
            column_by_column(px[1, :250, :1500], py[1, :251, :1500], modified),
        ]
    )
    exact = solve(px, py, t_lens, y_lens, modified)
    torch.testing.assert_close(exact.log_prob, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(exact.occupations.px.sum(2)[0], torch.ones(300).double())
    loss, _ = lattice_loss(px, py, t_lens, y_lens, modified)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(-loss, expected.float(), rtol=0, atol=0)


def test_without_an_alignment_the_loss_is_infinite_and_the_gradient_zero():
    px, py = random_arcs(3, 4, 5, seed=6)
    px.requires_grad_(), py.requires_grad_()
    t_lens, y_lens = torch.tensor([3, 5, 0]), torch.tensor([4, 4, 2])
    loss, _ = lattice_loss(px, py, t_lens, y_lens, modified=True)
    assert loss[0] == math.inf and loss[2] == math.inf and loss[1].isfinite()
    loss.sum().backward()
    assert not px.grad[[0, 2]].any() and not py.grad[[0, 2]].any()
    assert px.grad[1].any() and px.grad.isfinite().all() and py.grad.isfinite().all()


def test_empty_transcripts_have_one_path_of_blanks():
    px, py = random_arcs(2, 0, 6, seed=7)
    loss, occupations = lattice_loss(px, py, torch.tensor([6, 4]), torch.tensor([0, 0]))
    torch.testing.assert_close(loss, -torch.stack([py[0, 0].sum(), py[1, 0, :4].sum()]))
    assert occupations.px.shape == (2, 0, 6)


def test_forbidden_arcs_are_legal():
    px, py = random_arcs(1, 2, 4, seed=9)
    px[0, 0, :2] = -math.inf
    loss, occupations = lattice_loss(px, py, torch.tensor([4]), torch.tensor([2]))
    assert -loss.item() == pytest.approx(brute_force(px[0], py[0], modified=False), abs=1e-9)
    assert not occupations.px[0, :, :2].any()


def test_forward_variables_alone_give_the_same_sum():
    px, py = random_arcs(3, 5, 8, seed=8)
    lengths = torch.tensor([8, 6, 7]), torch.tensor([5, 0, 3])
    alone = solve(px, py, *lengths, modified=False, with_occupations=False)
    assert alone.occupations is None
    assert torch.equal(alone.log_prob, solve(px, py, *lengths, modified=False).log_prob)


def test_delay_bonus_is_centred_on_each_utterance():
    bonus = delay_bonus(torch.tensor([5, 4]), 5, 0.1)
    torch.testing.assert_close(bonus[0], torch.tensor([0.2, 0.1, 0.0, -0.1, -0.2]).double())
    torch.testing.assert_close(bonus[1, :4], torch.tensor([0.15, 0.05, -0.05, -0.15]).double())
