"""Compute the pruned transducer loss for training, with one of two backends: torch or k2.

Source: Kuang et al. 2022, "Pruned RNN-T for fast, memory-efficient ASR training"
(arXiv 2206.13236). The formulas are in ``simple_loss``, ``prune_ranges`` and ``pruned_loss``.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.base.options import check
from asrprune.transducer import k2_backend
from asrprune.transducer.options import LossOptions
from asrprune.transducer.prune_ranges import prune_ranges
from asrprune.transducer.pruned_loss import joined_band, pruned_loss
from asrprune.transducer.simple_loss import simple_loss


class TransducerLoss(NamedTuple):
    """Hold the unscaled losses of each utterance: float32, or float64 for float64 scores."""

    simple: Tensor  # (B,)
    pruned: Tensor  # (B,)


def transducer_loss(
    am: Tensor,
    lm: Tensor,
    a: Tensor,
    b: Tensor,
    joiner: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    t_lens: Tensor,
    y_lens: Tensor,
    options: LossOptions,
    on_logits: Callable[[Tensor], None] | None = None,
) -> TransducerLoss:
    """Return the simple and the pruned loss of each utterance.

    The simple loss sends gradients to ``am`` and ``lm``. The pruned loss sends gradients to ``a``,
    ``b`` and the joiner. The content of padding frames and symbols affects neither values nor
    gradients. With ``am_scale = 0``, the losses of an utterance do not depend on its batch. Empty
    transcripts are allowed. An utterance without an alignment ("modified" with fewer frames than
    symbols) has loss +inf and gradient 0. The caller must drop or report such an utterance.

    Args:
        am: (B, T, V) the encoder's scores for the simple loss; T may exceed the lengths.
        lm: (B, S + 1, V) the predictor's scores for the simple loss.
        a: (B, T, J) the encoder's output, projected for the joiner.
        b: (B, S + 1, J) the predictor's output, projected for the joiner.
        joiner: a function that broadcasts (B, T, 1, J) and (B, T, R, J) to logits (B, T, R, V).
        y: (B, S) int64 symbols in 1 .. V - 1; any values past the lengths.
        t_lens: (B,) int64 frames of each utterance.
        y_lens: (B,) int64 symbols of each utterance.
        options: the options of the loss.
        on_logits: a function that receives the joiner's logits (B, T, R, V) before the pruned loss,
            for example to observe their gradient.

    Raises:
        UserError: an option is out of its limits, or k2 is requested and not available.
    """
    check(options, "loss.")
    backend = resolve_backend(options.backend)
    num_frames, num_symbols = int(t_lens.max()), int(y_lens.max())
    am, a = (_without_padding(x, t_lens, num_frames) for x in (am, a))
    lm, b = (_without_padding(x, y_lens + 1, num_symbols + 1) for x in (lm, b))
    y = _without_padding(y, y_lens, num_symbols)
    modified = options.topology == "modified"

    with torch.autocast(am.device.type, enabled=False):
        am, lm = _at_least_float32(am), _at_least_float32(lm)
        if backend == "k2" and k2_backend.can_handle(t_lens, y_lens, options):
            simple, ranges = k2_backend.simple_loss_and_ranges(am, lm, y, t_lens, y_lens, options)
            lattice = k2_backend.pruned_loss
        else:
            simple, occupations = simple_loss(am, lm, y, t_lens, y_lens, options)
            ranges = prune_ranges(occupations, t_lens, y_lens, options.prune_range, modified)
            lattice = pruned_loss
    logits = joined_band(a, b, joiner, ranges)
    if on_logits:
        on_logits(logits)
    with torch.autocast(am.device.type, enabled=False):
        return TransducerLoss(simple, lattice(logits, y, ranges, t_lens, y_lens, options))


def resolve_backend(name: str) -> str:
    """Return ``"torch"`` or ``"k2"`` for the option ``loss.backend``: auto, torch or k2.

    Raises:
        UserError: the option is k2, and k2 cannot be used.
    """
    if name == "torch":
        return "torch"
    available, reason = k2_backend.k2_available()
    if name == "k2" and not available:
        raise UserError(
            f"loss.backend is 'k2', but {reason}. Install it with tools/install_k2.sh, or take "
            "loss.backend=auto, which runs the torch backend without it"
        )
    return "k2" if available else "torch"


def _without_padding(x: Tensor, lens: Tensor, longest: int) -> Tensor:
    """Cut ``x`` (B, N, ...) to (B, longest, ...), with 0 past the lengths.

    Without this, NaN in the padding would spread.
    """
    padding = torch.arange(longest, device=x.device) >= lens[:, None]
    return x[:, :longest].masked_fill(padding.view(*padding.shape, *[1] * (x.dim() - 2)), 0)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
