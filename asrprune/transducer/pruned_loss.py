"""Compute the pruned transducer loss: the joiner on a band of the lattice, with its own gradient.

The logits (B, T, W, V) are the largest tensor of a training step. On a CPU, their gradient is the
only other tensor of this size: sums and exponentials are computed chunk by chunk. On a GPU, many
small kernels would cost more than the memory. So the whole tensor is computed at once, in float32.
Source: Kuang et al. 2022 (arXiv 2206.13236), section 2.3.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from asrprune.transducer.lattice import MINUS_INFINITY, delay_bonus, solve
from asrprune.transducer.options import LossOptions
from asrprune.transducer.prune_ranges import PruneRanges

_CHUNK = 1 << 20  # logits in a chunk, a few MB


def joined_band(
    a: Tensor, b: Tensor, joiner: Callable[[Tensor, Tensor], Tensor], ranges: PruneRanges
) -> Tensor:
    """Return the logits (B, T, W, V) of the band.

    Args:
        a: (B, T, J) projected encoder output.
        b: (B, S + 1, J) projected predictor output.
        joiner: a function of (B, T, 1, J) and (B, T, W, J) that returns (B, T, W, V).
        ranges: the band.
    """
    positions = ranges.positions().clamp(max=b.shape[1] - 1)
    return joiner(a[:, :, None], _TakeRows.apply(b, positions))


def pruned_loss(
    logits: Tensor,
    y: Tensor,
    ranges: PruneRanges,
    t_lens: Tensor,
    y_lens: Tensor,
    options: LossOptions,
) -> Tensor:
    """Return the transducer loss over the band of ``ranges``.

    Args:
        logits: (B, T, W, V) unnormalised, any floating type, for the positions of ``ranges``.
        y: (B, S) int64 symbols, 0 past the lengths.
        ranges: the band.
        t_lens: (B,) int64 frames.
        y_lens: (B,) int64 symbols.
        options: the options of the loss.

    Returns:
        Losses (B,), float32 (float64 for float64 logits), differentiable in ``logits``.
    """
    return _PrunedLoss.apply(logits, y, ranges, t_lens, y_lens, options)


class _TakeRows(torch.autograd.Function):
    """Compute ``rows[b, t, w] = x[b, positions[b, t, w]]``.

    The gradient is a product with a one-hot matrix. This product has a fixed order of summation on
    every device, and the matrix unit accumulates in float32 under bf16. The product needs no
    (B, T, S + 1, J) tensor, unlike an expanded gather.
    """

    @staticmethod
    def forward(ctx, x, positions):
        ctx.save_for_backward(positions)
        ctx.num_rows = x.shape[1]
        first = torch.arange(len(x), device=x.device)[:, None, None] * ctx.num_rows
        rows = x.flatten(0, 1).index_select(0, (first + positions).flatten())
        return rows.view(*positions.shape, x.shape[2])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (positions,) = ctx.saved_tensors
        rows = torch.arange(ctx.num_rows, device=grad.device)[:, None]
        taken = (rows == positions.flatten(1)[:, None]).to(grad.dtype)  # (B, S + 1, T * W)
        with torch.autocast(grad.device.type, enabled=False):
            return taken @ grad.flatten(1, 2), None


class _PrunedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, y, ranges, t_lens, y_lens, options):
        logits = logits.contiguous()
        num_frames, width = logits.shape[1:3]
        positions = ranges.positions()
        targets = _targets(y, positions)
        px, py = _log_probs(logits, targets)
        if options.delay_penalty:
            px += delay_bonus(t_lens, num_frames, options.delay_penalty)[:, :, None].to(px.dtype)
        outside = torch.arange(width, device=logits.device) >= ranges.widths[:, None, None]
        num_positions = y.shape[1] + 1
        solution = solve(
            _to_grid(px.masked_fill_(outside, MINUS_INFINITY), positions, num_positions)[:, :-1],
            _to_grid(py.masked_fill_(outside, MINUS_INFINITY), positions, num_positions),
            t_lens,
            y_lens,
            options.topology == "modified",
            with_occupations=ctx.needs_input_grad[0],
        )
        if solution.occupations is not None:
            ctx.save_for_backward(
                logits,
                targets,
                _to_band(solution.occupations.px, positions, px.dtype),
                _to_band(solution.occupations.py, positions, py.dtype),
            )
        return -solution.log_prob.to(px.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        logits, targets, occupied_px, occupied_py = ctx.saved_tensors
        occupied_px = occupied_px * grad_loss[:, None, None]
        occupied_py = occupied_py * grad_loss[:, None, None]
        grad = torch.empty_like(logits)
        rows = logits, grad, *(x[..., None] for x in (targets, occupied_px, occupied_py))
        for chunk in _chunks(*rows):
            _logit_gradient(*chunk)
        return grad, None, None, None, None, None


def _log_probs(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of the targets and of blank, (B, T, W) each, at least float32."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    px = torch.empty(targets.shape, dtype=dtype, device=logits.device)
    py = torch.empty_like(px)
    for chunk, target, x, y in _chunks(logits, *(x[..., None] for x in (targets, px, py))):
        scores = torch.log_softmax(chunk, 1, dtype=dtype)
        torch.gather(scores, 1, target, out=x)
        y.copy_(scores[:, :1])
    return px, py


def _logit_gradient(logits: Tensor, grad: Tensor, target: Tensor, px: Tensor, py: Tensor) -> None:
    """Write ``(px + py) * softmax - px * [v = target] - py * [v = blank]`` into ``grad`` (N, V)."""
    # in place if `grad` has the type of `px`, otherwise in a temporary chunk
    out = grad if grad.dtype == px.dtype else torch.empty_like(grad, dtype=px.dtype)
    torch.softmax(logits, 1, dtype=px.dtype, out=out)
    out.mul_(px + py).scatter_add_(1, target, -px)
    out[:, :1] -= py
    if out is not grad:
        grad.copy_(out)


def _chunks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views (n, last) of contiguous tensors (..., last): few rows at a time, on a GPU all."""
    flat = [tensor.flatten(0, -2) for tensor in tensors]
    rows = len(flat[0]) if flat[0].is_cuda else max(1, _CHUNK // flat[0].shape[1])
    return zip(*(tensor.split(rows) for tensor in flat), strict=True)


def _targets(y: Tensor, positions: Tensor) -> Tensor:
    """Return the symbol y[b, s] that position s emits, (B, T, W); 0 (never used) past the last."""
    num_frames, width = positions.shape[1:]
    padded = functional.pad(y, (0, width))  # positions may pass the end by W - 1
    return padded[:, None].expand(-1, num_frames, -1).gather(2, positions)


def _to_grid(band: Tensor, positions: Tensor, num_positions: int) -> Tensor:
    """Spread a band (B, T, W) over a grid (B, S + 1, T), minus infinity outside the band."""
    num_utterances, num_frames, width = band.shape
    grid = band.new_full((num_utterances, num_frames, num_positions + width), MINUS_INFINITY)
    return grid.scatter_(2, positions, band)[:, :, :num_positions].transpose(1, 2)


def _to_band(grid: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
    """Gather a grid (B, rows, T) into a band (B, T, W), 0 past the last row."""
    padded = functional.pad(grid.to(dtype).transpose(1, 2), (0, positions.shape[2] + 1))
    return padded.gather(2, positions)
