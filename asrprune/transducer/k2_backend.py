"""Compute the loss with k2's kernels: the same values as the torch backend, but faster.

Only k2's documented interface is used. A k2 that does not import, or that lacks a function or an
argument, counts as missing. The module imports k2 only when a function needs it.
"""

import importlib
import inspect
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from asrprune.transducer.options import LossOptions
from asrprune.transducer.prune_ranges import PruneRanges, range_widths

# function of k2 -> arguments that this module passes
_NEEDED = {
    "rnnt_loss_smoothed": (
        *("lm", "am", "symbols", "termination_symbol", "lm_only_scale", "am_only_scale"),
        *("boundary", "rnnt_type", "delay_penalty", "reduction", "return_grad"),
    ),
    "get_rnnt_prune_ranges": ("px_grad", "py_grad", "boundary", "s_range"),
    "rnnt_loss_pruned": (
        *("logits", "symbols", "ranges", "termination_symbol"),
        *("boundary", "rnnt_type", "delay_penalty", "reduction"),
    ),
}


@lru_cache(maxsize=1)
def k2_available() -> tuple[bool, str]:
    """Return whether k2's loss can be used, and the reason."""
    try:
        k2 = importlib.import_module("k2")
    except ModuleNotFoundError as error:
        if error.name == "k2":
            return False, "k2 is not installed"
        return False, f"k2 does not import: {error}"
    # a k2 built for another torch can raise any exception
    except Exception as error:
        return False, f"k2 does not import: {type(error).__name__}: {error}"
    version = getattr(k2, "__version__", "of unknown version")
    for name, arguments in _NEEDED.items():
        function = getattr(k2, name, None)
        if function is None:
            return False, f"k2 {version} has no {name}"
        missing = [x for x in arguments if x not in inspect.signature(function).parameters]
        if missing:
            return False, f"{name} of k2 {version} has no argument {', '.join(missing)}"
    return True, f"k2 {version} has the loss"


def can_handle(t_lens: Tensor, y_lens: Tensor, options: LossOptions) -> bool:
    """Return whether k2 computes this batch as the torch backend does.

    k2 cannot handle a batch in these cases:

    - All transcripts are empty, or the batch has fewer frames than symbols (k2 asserts).
    - An utterance has no alignment.
    - An utterance needs a band wider than ``prune_range`` (k2 has one width for the batch).
    - The unigram distribution of ``am_scale`` would include padding.
    """
    symbols, frames = int(y_lens.max()), int(t_lens.max())
    if symbols == 0 or frames < symbols or int(t_lens.min()) == 0:
        return False
    if options.topology == "modified" and bool((t_lens < y_lens).any()):
        return False
    if bool((range_widths(t_lens, y_lens, options.prune_range) > options.prune_range).any()):
        return False
    return options.am_scale == 0 or bool((y_lens == symbols).all())


def simple_loss_and_ranges(
    am: Tensor, lm: Tensor, y: Tensor, t_lens: Tensor, y_lens: Tensor, options: LossOptions
) -> tuple[Tensor, PruneRanges]:
    """Return simple losses (B,) and prune ranges. Arguments as of ``simple_loss.simple_loss``."""
    simple, (px_grad, py_grad) = simple_loss_and_occupations(am, lm, y, t_lens, y_lens, options)
    width = int(range_widths(t_lens, y_lens, options.prune_range).max())
    positions = _k2().get_rnnt_prune_ranges(
        px_grad=px_grad,
        py_grad=py_grad,
        boundary=_boundary(t_lens, y_lens),
        s_range=width,
    )
    widths = torch.full_like(y_lens, positions.shape[2])  # one width for the whole batch
    return simple, PruneRanges(positions[:, :, 0].contiguous(), widths)


def simple_loss_and_occupations(
    am: Tensor, lm: Tensor, y: Tensor, t_lens: Tensor, y_lens: Tensor, options: LossOptions
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return simple losses (B,) and k2's occupations. Arguments as of ``simple_loss.simple_loss``.

    Returns:
        The losses, and the occupations px and py. px is (B, S, T + 1), or (B, S, T) in the modified
        topology. py is (B, S + 1, T).
    """
    return _k2().rnnt_loss_smoothed(
        lm=lm,
        am=am,
        symbols=y,
        termination_symbol=0,
        lm_only_scale=options.lm_scale,
        am_only_scale=options.am_scale,
        boundary=_boundary(t_lens, y_lens),
        rnnt_type=options.topology,
        delay_penalty=options.delay_penalty,
        reduction="none",
        return_grad=True,
    )


def pruned_loss(
    logits: Tensor,
    y: Tensor,
    ranges: PruneRanges,
    t_lens: Tensor,
    y_lens: Tensor,
    options: LossOptions,
) -> Tensor:
    """Return pruned losses (B,). Arguments as of ``pruned_loss.pruned_loss``, with equal widths."""
    return _k2().rnnt_loss_pruned(
        logits=logits.to(torch.promote_types(logits.dtype, torch.float32)),
        symbols=y,
        ranges=ranges.positions(),
        termination_symbol=0,
        boundary=_boundary(t_lens, y_lens),
        rnnt_type=options.topology,
        delay_penalty=options.delay_penalty,
        reduction="none",
    )


def _k2() -> ModuleType:
    return importlib.import_module("k2")


def _boundary(t_lens: Tensor, y_lens: Tensor) -> Tensor:
    """Return k2's boundaries (B, 4) int64 with rows [0, 0, S_b, T_b]."""
    zeros = torch.zeros_like(y_lens)
    return torch.stack([zeros, zeros, y_lens, t_lens], dim=1)
