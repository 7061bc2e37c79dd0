"""The k2 backend: against real k2 where it is installed, and its calls against a strict double."""

import sys
from types import ModuleType

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.transducer import k2_backend
from asrprune.transducer.lattice import Occupations
from asrprune.transducer.loss import resolve_backend, transducer_loss
from asrprune.transducer.options import LossOptions
from asrprune.transducer.prune_ranges import PruneRanges, prune_ranges, start_scores
from asrprune.transducer.pruned_loss import joined_band, pruned_loss
from asrprune.transducer.simple_loss import simple_loss
from tests.transducer.loss_cases import SmallJoiner, random_batch

real_k2 = pytest.mark.skipif(
    not k2_backend.k2_available()[0], reason=k2_backend.k2_available()[1] + " (not an error)"
)
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        LossOptions(),
        LossOptions(topology="modified"),
        LossOptions(delay_penalty=0.02, lm_scale=0.0),
        LossOptions(delay_penalty=0.02, topology="modified", prune_range=3),
    ],
    ids=["regular", "modified", "delay", "modified-delay"],
)
T_LENS, Y_LENS = [60, 41, 50], [18, 12, 0]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-4, atol=1e-5)


@real_k2
@OPTIONS
def test_simple_loss_and_occupations_agree_with_k2(options):
    results = []
    for function in (simple_loss, k2_backend.simple_loss_and_occupations):
        batch = random_batch(T_LENS, Y_LENS, vocab=30).with_gradients()
        loss, occupations = function(
            batch.am, batch.lm, batch.y, batch.t_lens, batch.y_lens, options
        )
        # copies: k2's backward scales its occupations in place
        px, py = occupations[0][:, :, : max(T_LENS)].clone(), occupations[1].clone()
        loss.sum().backward()
        results.append((loss.detach(), px.float(), py.float(), batch.am.grad, batch.lm.grad))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


@real_k2
def test_the_unigram_average_agrees_with_k2_without_padding():
    options = LossOptions(am_scale=0.3)
    batch = random_batch([30, 25], [9, 9], vocab=30)
    rest = batch.am, batch.lm, batch.y, batch.t_lens, batch.y_lens, options
    close(simple_loss(*rest)[0], k2_backend.simple_loss_and_occupations(*rest)[0])


@real_k2
@OPTIONS
def test_ranges_are_k2s_unless_two_starts_are_nearly_as_good(options):
    modified = options.topology == "modified"
    compared = 0
    for seed in range(5):
        batch = random_batch(T_LENS, Y_LENS, vocab=30, seed=seed)
        # flat posteriors: sharp ones have many starts that lose next to nothing
        rest = 0.1 * batch.am, 0.1 * batch.lm, batch.y, batch.t_lens, batch.y_lens, options
        _, occupations = simple_loss(*rest)
        ours = prune_ranges(occupations, batch.t_lens, batch.y_lens, options.prune_range, modified)
        _, theirs = k2_backend.simple_loss_and_ranges(*rest)
        best = start_scores(occupations, batch.y_lens, ours.widths).topk(2, dim=1).values
        close_call = best[:, 0] - best[:, 1] < 1e-4
        close_call &= torch.arange(max(T_LENS)) < batch.t_lens[:, None] - 1
        for b, frames in enumerate(T_LENS):
            if not close_call[b].any():
                assert torch.equal(ours.starts[b, :frames], theirs.starts[b, :frames])
                compared += 1
    assert compared >= 8  # of 15


@real_k2
@OPTIONS
def test_pruned_loss_agrees_with_k2_on_shared_ranges(options):
    results = []
    for function in (pruned_loss, k2_backend.pruned_loss):
        batch = random_batch(T_LENS, Y_LENS, vocab=30).with_gradients()
        joiner = SmallJoiner(vocab=30)
        _, ranges = k2_backend.simple_loss_and_ranges(
            batch.am, batch.lm, batch.y, batch.t_lens, batch.y_lens, options
        )
        logits = joined_band(batch.a, batch.b, joiner, ranges)
        loss = function(logits, batch.y, ranges, batch.t_lens, batch.y_lens, options)
        loss.sum().backward()
        results.append((loss.detach(), batch.a.grad, batch.b.grad, joiner.output.weight.grad))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)


def _smoothed(
    lm,
    am,
    symbols,
    termination_symbol,
    lm_only_scale=0.1,
    am_only_scale=0.1,
    boundary=None,
    rnnt_type="regular",
    delay_penalty=0.0,
    reduction="mean",
    return_grad=False,
):
    _check(am.shape[1], symbols, boundary, termination_symbol, reduction)
    assert return_grad and am.dtype == lm.dtype == torch.float32
    options = LossOptions(
        topology=rnnt_type,
        lm_scale=lm_only_scale,
        am_scale=am_only_scale,
        delay_penalty=delay_penalty,
    )
    loss, (px, py) = simple_loss(am, lm, symbols, boundary[:, 3], boundary[:, 2], options)
    if rnnt_type == "regular":  # k2 has a column for "one past the last frame"
        px = torch.nn.functional.pad(px, (0, 1))
    return loss, (px.float(), py.float())


def _ranges(px_grad, py_grad, boundary, s_range):
    frames = py_grad.shape[2]
    modified = px_grad.shape[2] == frames
    lengths = boundary[:, 3], boundary[:, 2]
    occupations = Occupations(px_grad[:, :, :frames], py_grad)
    starts, _ = prune_ranges(occupations, *lengths, s_range, modified)
    return starts[:, :, None] + torch.arange(s_range)


def _pruned(
    logits,
    symbols,
    ranges,
    termination_symbol,
    boundary=None,
    rnnt_type="regular",
    delay_penalty=0.0,
    reduction="mean",
):
    _check(logits.shape[1], symbols, boundary, termination_symbol, reduction)
    assert logits.shape[:3] == ranges.shape and logits.dtype == torch.float32
    assert ranges.max() <= symbols.shape[1]
    options = LossOptions(topology=rnnt_type, delay_penalty=delay_penalty)
    ranges = PruneRanges(ranges[:, :, 0], torch.full((len(ranges),), ranges.shape[2]))
    return pruned_loss(logits, symbols, ranges, boundary[:, 3], boundary[:, 2], options)


def _check(frames, symbols, boundary, termination_symbol, reduction):
    """What k2 asserts of its arguments."""
    assert symbols.shape[1] >= 1 and frames >= symbols.shape[1]
    assert symbols.dtype == boundary.dtype == torch.int64
    assert boundary.shape == (len(symbols), 4) and not boundary[:, :2].any()
    assert boundary[:, 2].max() <= symbols.shape[1] and boundary[:, 3].max() <= frames
    assert termination_symbol == 0 and reduction == "none"


@pytest.fixture
def double(monkeypatch):
    """A module with k2's interface and assertions over our own lattice; counts its calls."""
    module = ModuleType("k2")
    module.__version__ = "1.24.4"
    module.calls = []

    def counted(function):
        def call(**arguments):
            module.calls.append(function.__name__)
            return function(**arguments)

        call.__wrapped__ = function  # so that its signature is the function's
        return call

    module.rnnt_loss_smoothed = counted(_smoothed)
    module.get_rnnt_prune_ranges = counted(_ranges)
    module.rnnt_loss_pruned = counted(_pruned)
    monkeypatch.setitem(sys.modules, "k2", module)
    k2_backend.k2_available.cache_clear()
    yield module
    k2_backend.k2_available.cache_clear()


def losses(batch, options):
    rest = batch.y, batch.t_lens, batch.y_lens, options
    return transducer_loss(*batch.scores(), SmallJoiner(), *rest)


@OPTIONS
def test_both_backends_take_the_same_way(double, options):
    batch = random_batch([30, 21, 25], [9, 2, 0], extra=2)
    expected = losses(batch, LossOptions(**{**vars(options), "backend": "torch"}))
    assert not double.calls
    found = losses(batch, LossOptions(**{**vars(options), "backend": "k2"}))
    assert double.calls == ["_smoothed", "_ranges", "_pruned"]
    close(found.simple, expected.simple)
    close(found.pruned, expected.pruned)


@pytest.mark.parametrize(
    ("t_lens", "y_lens", "options"),
    [
        ([9, 7], [0, 0], {}),  # all transcripts empty
        ([4, 3], [6, 1], {}),  # fewer frames than symbols
        ([30, 2], [9, 9], {}),  # one utterance needs a wider band
        ([12, 3], [9, 4], {"topology": "modified"}),  # one has no alignment
        ([12, 9], [5, 4], {"am_scale": 0.2}),  # the unigram would average over padding
    ],
)
def test_what_k2_would_refuse_or_do_otherwise_goes_to_torch(double, t_lens, y_lens, options):
    batch = random_batch(t_lens, y_lens)
    found = losses(batch, LossOptions(backend="k2", **options))
    assert not double.calls
    expected = losses(batch, LossOptions(backend="torch", **options))
    assert torch.equal(found.simple, expected.simple) and torch.equal(found.pruned, expected.pruned)


def test_a_k2_with_the_loss_is_taken_by_auto(double):
    assert k2_backend.k2_available() == (True, "k2 1.24.4 has the loss")
    assert resolve_backend("auto") == resolve_backend("k2") == "k2"


def test_a_k2_without_a_function_or_an_argument_counts_as_absent(double):
    def pruned_of_an_old_k2(logits, symbols, ranges, termination_symbol, boundary, modified):
        """Before 1.23 the topology was a flag."""

    double.rnnt_loss_pruned = pruned_of_an_old_k2
    available, reason = k2_backend.k2_available()
    assert not available and "rnnt_loss_pruned" in reason and "rnnt_type" in reason
    del double.get_rnnt_prune_ranges
    k2_backend.k2_available.cache_clear()
    available, reason = k2_backend.k2_available()
    assert not available and "get_rnnt_prune_ranges" in reason
    assert resolve_backend("auto") == "torch"


def test_a_k2_that_breaks_at_import_counts_as_absent(double, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "k2")
    (tmp_path / "k2.py").write_text("raise OSError('undefined symbol: THPVariable')\n")
    monkeypatch.syspath_prepend(tmp_path)
    available, reason = k2_backend.k2_available()
    assert not available and "undefined symbol" in reason
    with pytest.raises(UserError, match="tools/install_k2.sh"):
        resolve_backend("k2")


def test_k2_is_not_imported_for_the_torch_backend(double, monkeypatch):
    monkeypatch.setattr(k2_backend.importlib, "import_module", pytest.fail)
    losses(random_batch([6], [2]), LossOptions(backend="torch"))
    assert resolve_backend("torch") == "torch"
