"""The pruned loss against torchaudio's, against brute force, and its gradient by hand."""

import pytest
import torch

from asrprune.transducer import pruned_loss as pruned_loss_module
from asrprune.transducer.options import LossOptions
from asrprune.transducer.prune_ranges import PruneRanges
from asrprune.transducer.pruned_loss import joined_band, pruned_loss
from tests.transducer.loss_cases import SmallJoiner, brute_force, random_batch

TOPOLOGIES = pytest.mark.parametrize("topology", ["regular", "modified"])


@pytest.fixture
def small_chunks(monkeypatch):
    """So that tests go through several chunks."""
    monkeypatch.setattr(pruned_loss_module, "_CHUNK", 64)


def loss_over(batch, ranges, joiner, options=None):
    logits = joined_band(batch.a, batch.b, joiner, ranges)
    rest = batch.t_lens, batch.y_lens, options or LossOptions()
    return pruned_loss(logits, batch.y, ranges, *rest)


def full_loss(batch, joiner, options=None):
    # the band that keeps everything
    ranges = PruneRanges(torch.zeros(batch.a.shape[:2], dtype=torch.int64), batch.y_lens + 1)
    return loss_over(batch, ranges, joiner, options)


def bands(batch, width):
    """Any legal band: diagonal, from the start to the end."""
    t = torch.arange(batch.a.shape[1])
    last = (batch.y_lens + 1 - width).clamp(min=0)[:, None]
    starts = torch.minimum(t * last // (batch.t_lens[:, None] - 1).clamp(min=1), last)
    return PruneRanges(starts, torch.full_like(batch.y_lens, width).minimum(batch.y_lens + 1))


def test_equals_torchaudio_with_an_additive_joiner(small_chunks):
    rnnt_loss = pytest.importorskip("torchaudio.functional").rnnt_loss
    batch = random_batch([14, 9, 11], [5, 6, 0], vocab=9, dim=9)
    results = []
    for full in (
        lambda a, b: full_loss(batch_with(batch, a, b), torch.add),
        lambda a, b: rnnt_loss(
            a[:, :, None] + b[:, None],
            batch.y.int(),
            batch.t_lens.int(),
            batch.y_lens.int(),
            blank=0,
            reduction="none",
        ),
    ):
        a, b = batch.a.clone().requires_grad_(), batch.b.clone().requires_grad_()
        loss = full(a, b)
        (loss * torch.tensor([1.0, 0.5, -2.0])).sum().backward()
        results.append((loss.detach(), a.grad, b.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def batch_with(batch, a, b):
    return type(batch)(batch.am, batch.lm, a, b, batch.y, batch.t_lens, batch.y_lens)


@TOPOLOGIES
@pytest.mark.parametrize("width", [2, 3, 5])
def test_equals_brute_force_over_the_band(topology, width):
    batch = random_batch([5, 4], [4, 2], dtype=torch.float64)
    joiner = SmallJoiner(dtype=torch.float64)
    ranges = bands(batch, width)
    loss = loss_over(batch, ranges, joiner, LossOptions(topology=topology))
    for b in range(2):
        t, s = int(batch.t_lens[b]), int(batch.y_lens[b])
        scores = joiner(batch.a[b, None, :t], batch.b[b, : s + 1, None]).log_softmax(2)
        first = ranges.starts[b, :t]
        position = torch.arange(s + 1)[:, None]
        outside = (position < first) | (position >= first + ranges.widths[b])
        scores = scores.masked_fill(outside[:, :, None], -torch.inf)  # (S + 1, T, V)
        px = torch.stack([scores[i, :, batch.y[b, i]] for i in range(s)])
        expected = -brute_force(px, scores[:, :, 0], topology == "modified")
        assert loss[b].item() == pytest.approx(expected, abs=1e-9)


@TOPOLOGIES
def test_gradcheck(topology, small_chunks):
    batch = random_batch([5, 4, 3], [3, 0, 2], vocab=5, dim=3, dtype=torch.float64)
    joiner = SmallJoiner(5, 3, dtype=torch.float64)
    ranges = bands(batch, 2)
    options = LossOptions(topology=topology, delay_penalty=0.1)

    def loss(a, b, weight, bias):
        def join(a, b):
            return torch.nn.functional.linear(torch.tanh(a + b), weight, bias)

        return loss_over(batch_with(batch, a, b), ranges, join, options)

    batch = batch.with_gradients()
    inputs = batch.a, batch.b, joiner.output.weight, joiner.output.bias
    assert torch.autograd.gradcheck(loss, inputs)


def test_pruning_only_removes_alignments():
    batch = random_batch([20, 13], [8, 5], dtype=torch.float64)
    joiner = SmallJoiner(dtype=torch.float64)
    full = full_loss(batch, joiner)
    previous = torch.full_like(full, torch.inf)
    for width in (2, 4, 6):
        pruned = loss_over(batch, bands(batch, width), joiner)
        assert (pruned >= full).all()
        previous = pruned
    assert (previous[1] == full[1]).all()  # 6 positions are all of 5 symbols
    torch.testing.assert_close(loss_over(batch, bands(batch, 9), joiner), full)


def test_low_precision_logits_give_float32_losses_and_gradients_of_their_own_type(small_chunks):
    batch = random_batch([30, 21], [8, 6])
    joiner = SmallJoiner()
    ranges = bands(batch, 4)
    exact = joined_band(batch.a, batch.b, joiner, ranges).detach().bfloat16()
    rest = batch.y, ranges, batch.t_lens, batch.y_lens, LossOptions()
    logits, wide = exact.clone().requires_grad_(), exact.float().requires_grad_()
    low, high = pruned_loss(logits, *rest), pruned_loss(wide, *rest)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, high)
    low.sum().backward(), high.sum().backward()
    assert logits.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logits.grad, wide.grad.bfloat16(), rtol=0.02, atol=1e-6)


def test_logits_of_any_layout_and_without_gradients():
    batch = random_batch([9, 6], [4, 4])
    ranges = bands(batch, 3)
    rest = batch.y, ranges, batch.t_lens, batch.y_lens, LossOptions()
    logits = joined_band(batch.a, batch.b, SmallJoiner(), ranges).detach()
    strided = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    losses = []
    for twin in (logits, strided):
        twin.requires_grad_()
        loss = pruned_loss(twin, *rest)
        loss.sum().backward()
        losses.append(loss)
        with torch.no_grad():
            losses.append(pruned_loss(twin, *rest))
    assert all(torch.equal(loss, losses[0]) for loss in losses)
    assert torch.equal(strided.grad, logits.grad)
