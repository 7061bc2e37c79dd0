"""The simple loss against its formula on the full (B, T, S + 1, V) tensor."""

import pytest
import torch

from asrprune.transducer.lattice import lattice_loss
from asrprune.transducer.options import LossOptions
from asrprune.transducer.simple_loss import simple_log_probs, simple_loss
from tests.transducer.loss_cases import brute_force, random_batch

SCALES = pytest.mark.parametrize("scales", [(0.0, 0.0), (0.25, 0.0), (0.25, 0.1), (0.0, 1.0)])


def by_the_formula(batch, lm_scale, am_scale):
    """px and py of the first utterance of a batch without padding, log-softmax by log-softmax."""
    am, lm = batch.am[0], batch.lm[0]
    joint = (am[None] + lm[:, None]).log_softmax(2)  # (S + 1, T, V)
    lm_only = lm.log_softmax(1)[:, None]
    unigram = batch.lm.softmax(2).mean((0, 1))
    am_only = (am + unigram.log()).log_softmax(1)[None]
    scores = (1 - lm_scale - am_scale) * joint + lm_scale * lm_only + am_scale * am_only
    px = torch.stack([scores[s, :, symbol] for s, symbol in enumerate(batch.y[0])])
    return px, scores[:, :, 0]


@SCALES
def test_log_probs_follow_the_formula(scales):
    batch = random_batch([6, 6], [4, 4], dtype=torch.float64)
    px, py = simple_log_probs(batch.am, batch.lm, batch.y, batch.y_lens, *scales)
    expected_px, expected_py = by_the_formula(batch, *scales)
    torch.testing.assert_close(px[0], expected_px, rtol=0, atol=1e-12)
    torch.testing.assert_close(py[0], expected_py, rtol=0, atol=1e-12)


@SCALES
@pytest.mark.parametrize("topology", ["regular", "modified"])
def test_loss_is_the_brute_force_sum(topology, scales):
    options = LossOptions(topology=topology, lm_scale=scales[0], am_scale=scales[1])
    batch = random_batch([5, 5], [3, 3], dtype=torch.float64)
    loss, _ = simple_loss(batch.am, batch.lm, batch.y, batch.t_lens, batch.y_lens, options)
    expected = -brute_force(*by_the_formula(batch, *scales), topology == "modified")
    assert loss[0].item() == pytest.approx(expected, abs=1e-9)


@SCALES
def test_gradcheck(scales):
    options = LossOptions(lm_scale=scales[0], am_scale=scales[1], delay_penalty=0.1)
    batch = random_batch([4, 3], [2, 3], vocab=4, dtype=torch.float64)

    def loss(am, lm):
        return simple_loss(am, lm, batch.y, batch.t_lens, batch.y_lens, options)[0]

    batch = batch.with_gradients()
    assert torch.autograd.gradcheck(loss, (batch.am, batch.lm))


@SCALES
def test_a_constant_added_to_a_row_changes_nothing(scales):
    options = LossOptions(lm_scale=scales[0], am_scale=scales[1])
    batch = random_batch([8, 8], [5, 4])
    rest = batch.y, batch.t_lens, batch.y_lens, options
    loss, _ = simple_loss(batch.am, batch.lm, *rest)
    generator = torch.Generator().manual_seed(1)
    for shift in (1.0, 300.0):  # exp(300) is infinite in float32
        am_shift = shift * torch.randn(2, 8, 1, generator=generator)
        lm_shift = shift * torch.randn(2, 6, 1, generator=generator)
        shifted, _ = simple_loss(batch.am + am_shift, batch.lm + lm_shift, *rest)
        # float32 keeps 1e-5 of a score near 300
        torch.testing.assert_close(shifted, loss, rtol=0, atol=2e-6 * shift + 1e-5)


def test_scores_that_exclude_each_other_stay_finite():
    """All products of the exponentials underflow: the normaliser is a tiny number, not log 0."""
    batch = random_batch([4], [2]).with_gradients()
    with torch.no_grad():
        batch.am.copy_(torch.tensor([500.0, 0, 0, 0, 0, 0, 0]).expand(1, 4, 7))
        batch.lm.copy_(torch.tensor([0.0, 500, 0, 0, 0, 0, 0]).expand(1, 3, 7))
    rest = batch.y, batch.t_lens, batch.y_lens, LossOptions()
    loss, _ = simple_loss(batch.am, batch.lm, *rest)
    loss.sum().backward()
    assert loss.isfinite().all() and batch.am.grad.isfinite().all()


def test_the_unigram_average_leaves_padding_out():
    """Two utterances of one kind: the average over both is the average over one, if unpadded."""
    options = LossOptions(lm_scale=0.0, am_scale=0.5)
    alone = random_batch([6], [3])
    rest = alone.t_lens, alone.y_lens, options
    loss, _ = simple_loss(alone.am, alone.lm, alone.y, *rest)
    lm = torch.cat([alone.lm, torch.randn(1, 4, 7)], dim=1)  # junk rows
    y = torch.cat([alone.y, torch.zeros(1, 4, dtype=torch.int64)], dim=1)
    padded, _ = simple_loss(alone.am, lm, y, *rest)
    torch.testing.assert_close(padded, loss)


def test_delay_penalty_favours_early_symbols():
    """The loss moves by the mean emission time: its derivative by the penalty, at zero penalty."""
    batch = random_batch([9], [4], dtype=torch.float64)
    rest = batch.y, batch.t_lens, batch.y_lens
    plain, occupations = simple_loss(batch.am, batch.lm, *rest, LossOptions())
    epsilon = 1e-6
    options = LossOptions(delay_penalty=epsilon)
    penalised, _ = simple_loss(batch.am, batch.lm, *rest, options)
    lateness = (occupations.px * (torch.arange(9) - 4.0)).sum()
    assert (penalised - plain).item() / epsilon == pytest.approx(lateness.item(), rel=1e-4)


def test_it_is_the_lattice_of_its_log_probs():
    batch = random_batch([7, 5], [3, 2])
    arcs = simple_log_probs(batch.am, batch.lm, batch.y, batch.y_lens, 0.25, 0.0)
    expected, _ = lattice_loss(*arcs, batch.t_lens, batch.y_lens)
    rest = batch.y, batch.t_lens, batch.y_lens, LossOptions()
    assert torch.equal(simple_loss(batch.am, batch.lm, *rest)[0], expected)
