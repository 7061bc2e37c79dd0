"""Compute the log-probability of all alignments in the transducer lattice, and arc occupations.

In state ``(s, t)``, ``s`` symbols have been emitted and ``t`` frames are finished. The arc
``px[b, s, t]`` emits symbol ``s + 1``. The arc ``py[b, s, t]`` emits blank and moves to frame
``t + 1`` (Graves 2012). In the "modified" topology a symbol also moves to the next frame, so each
frame emits at most one symbol.

Every arc leads from one *recursion step* to the next. Recursion steps are anti-diagonals ``s + t``
in the "regular" topology and frames ``t`` in the "modified" topology. So one recursion serves both
topologies on every device, and no running sums lose precision. The recursion uses float64.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

MINUS_INFINITY = float("-inf")


class Occupations(NamedTuple):
    """Hold the posterior probabilities of the arcs: the gradients of the log-probability."""

    px: Tensor  # (B, S, T), symbols
    py: Tensor  # (B, S + 1, T), blanks


def lattice_loss(
    px: Tensor, py: Tensor, t_lens: Tensor, y_lens: Tensor, modified: bool = False
) -> tuple[Tensor, Occupations]:
    """Return minus the log-probability of all alignments of each utterance, with gradients.

    Args:
        px: (B, S, T) log-probabilities of the next symbol; read only inside the lengths.
        py: (B, S + 1, T) log-probabilities of blank; read only inside the lengths.
        t_lens: (B,) frames of each utterance, at most T.
        y_lens: (B,) symbols of each utterance, at most S.
        modified: whether a symbol also moves to the next frame.

    Returns:
        Losses (B,) in the type of ``px``, and the occupations (float64, constants). An utterance
        without any alignment has loss +inf, occupations 0 and gradient 0. Such an utterance has
        fewer frames than symbols ("modified"), or symbols and no frames.
    """
    loss, occupied_px, occupied_py = _LatticeLoss.apply(px, py, t_lens, y_lens, modified)
    return loss, Occupations(occupied_px, occupied_py)


def delay_bonus(t_lens: Tensor, num_frames: int, delay_penalty: float) -> Tensor:
    """Return the bonus for early symbols, (B, T) float64: ``delay_penalty * ((T_b - 1) / 2 - t)``.

    The bonus is added to px. Source: Kang et al. 2022, "Delay-penalized transducer"
    (arXiv 2211.00490), centred as in k2.
    """
    frames = torch.arange(num_frames, device=t_lens.device, dtype=torch.float64)
    return delay_penalty * ((t_lens[:, None] - 1) / 2 - frames)


class Solution(NamedTuple):
    """Hold the results of :func:`solve`."""

    log_prob: Tensor  # (B,) float64
    occupations: Occupations | None


@torch.no_grad()
def solve(
    px: Tensor,
    py: Tensor,
    t_lens: Tensor,
    y_lens: Tensor,
    modified: bool,
    with_occupations: bool = True,
) -> Solution:
    """Return log-probabilities and occupations from forward and backward variables.

    Autograd does not record the computation.

    Args:
        px: see `lattice_loss`.
        py: see `lattice_loss`.
        t_lens: see `lattice_loss`.
        y_lens: see `lattice_loss`.
        modified: see `lattice_loss`.
        with_occupations: whether to compute the occupations.
    """
    num_utterances, num_positions, num_frames = py.shape
    x, y = _steps(px, py, t_lens, y_lens, modified)
    num_steps = y.shape[0]
    # `x` has the position where its arc starts; `_walk` needs the position where the arc ends
    x_in = x.roll(1, 2)
    start = torch.zeros_like(y_lens)
    if not with_occupations:
        alpha = _walk(x_in, y, start)
        return Solution(_at_the_end(alpha[-1], y_lens), None)

    # The reversed lattice is a lattice too. So forward and backward variables are one batch.
    both = _walk(
        torch.cat([x_in, x.flip(0, 2)], dim=1),
        torch.cat([y, y.flip(0, 2)], dim=1),
        torch.cat([start, num_positions - 1 - y_lens]),
    )
    alpha, beta = both[:, :num_utterances], both[:, num_utterances:].flip(0, 2)
    log_prob = _at_the_end(alpha[num_steps], y_lens)
    # without an alignment, every sum below is minus infinity for any finite total
    total = log_prob.masked_fill(log_prob == MINUS_INFINITY, 0.0)[:, None]
    y.add_(alpha[:-1]).add_(beta[1:]).sub_(total).exp_()
    x = x[:, :, :-1].add_(alpha[:-1, :, :-1]).add_(beta[1:, :, 1:]).sub_(total).exp_()
    x, y = x.permute(1, 2, 0), y.permute(1, 2, 0)
    if not modified:
        x, y = _unskewed(x, num_frames), _unskewed(y, num_frames)
    # Outside the lengths, only the loop in the final state has mass, and this loop is not an arc.
    inside = _frames_inside(t_lens, num_frames)[:, None]
    return Solution(log_prob, Occupations(x * inside, y * inside))


def _steps(
    px: Tensor, py: Tensor, t_lens: Tensor, y_lens: Tensor, modified: bool
) -> tuple[Tensor, Tensor]:
    """Return the arcs by the recursion step that they leave: two (D, B, S + 1) float64.

    Missing arcs are minus infinity. An utterance that has ended remains in its final state at no
    cost, so that all utterances end at step D.
    """
    num_positions, num_frames = py.shape[1:]
    positions = torch.arange(num_positions, device=py.device)
    inside = _frames_inside(t_lens, num_frames)[:, None]  # (B, 1, T)
    may_emit = inside & (positions < y_lens[:, None])[:, :, None]
    may_stay = inside & (positions <= y_lens[:, None])[:, :, None]
    x = functional.pad(px.double(), (0, 0, 0, 1)).masked_fill_(~may_emit, MINUS_INFINITY)
    y = py.double().masked_fill(~may_stay, MINUS_INFINITY)
    end = t_lens
    if not modified:
        x, y, end = _skewed(x), _skewed(y), t_lens + y_lens
    x, y = x.permute(2, 0, 1).contiguous(), y.permute(2, 0, 1).contiguous()
    ended = torch.arange(y.shape[0], device=py.device)[:, None] >= end  # (D, B)
    y.masked_fill_(ended[:, :, None] & (positions == y_lens[:, None]), 0.0)
    return x, y


def _walk(x_in: Tensor, y: Tensor, start: Tensor) -> Tensor:
    """Return log-probabilities of reaching positions: (D, N, S + 1) arcs -> (D + 1, N, S + 1).

    ``p[d + 1, s] = logaddexp(p[d, s] + y[d, s], p[d, s - 1] + x_in[d, s])``.
    """
    num_steps, num_rows, num_positions = y.shape
    p = y.new_full((num_steps + 1, num_rows, num_positions + 1), MINUS_INFINITY)
    p[0].scatter_(1, start[:, None] + 1, 0.0)  # column 0 is "before the first position"
    here, before = p[:, :, 1:].unbind(0), p[:, :, :-1].unbind(0)
    stay, move = torch.empty_like(y[0]), torch.empty_like(y[0])
    for step, (blank, symbol) in enumerate(zip(y.unbind(0), x_in.unbind(0), strict=True)):
        torch.add(here[step], blank, out=stay)
        torch.add(before[step], symbol, out=move)
        torch.logaddexp(stay, move, out=here[step + 1])
    return p[:, :, 1:]


def _skewed(grid: Tensor) -> Tensor:
    """Arrange a grid by anti-diagonals: (B, S + 1, T) by frame -> (B, S + 1, S + T).

    New elements are minus infinity. Rows of length S + T + 1 are read as rows of length S + T, so
    that row s starts s elements later.
    """
    num_utterances, num_positions, num_frames = grid.shape
    width = num_positions - 1 + num_frames
    flat = functional.pad(grid, (0, num_positions), value=MINUS_INFINITY).flatten(1)
    return flat[:, : num_positions * width].reshape(num_utterances, num_positions, width)


def _unskewed(grid: Tensor, num_frames: int) -> Tensor:
    """Invert :func:`_skewed`, for any number of rows."""
    num_utterances, num_positions, width = grid.shape
    flat = functional.pad(grid.flatten(1), (0, num_positions))
    return flat.reshape(num_utterances, num_positions, width + 1)[:, :, :num_frames]


def _frames_inside(t_lens: Tensor, num_frames: int) -> Tensor:
    """Return a mask (B, T) that is True for the frames of an utterance."""
    return torch.arange(num_frames, device=t_lens.device) < t_lens[:, None]


def _at_the_end(p: Tensor, y_lens: Tensor) -> Tensor:
    """Return the values at position S_b: (B, S + 1) -> (B,)."""
    return p.gather(1, y_lens[:, None]).squeeze(1)


class _LatticeLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, px, py, t_lens, y_lens, modified):
        solution = solve(px, py, t_lens, y_lens, modified)
        occupied_px, occupied_py = cast(Occupations, solution.occupations)  # asked for
        ctx.save_for_backward(occupied_px, occupied_py)
        ctx.mark_non_differentiable(occupied_px, occupied_py)
        ctx.dtype = px.dtype
        return -solution.log_prob.to(px.dtype), occupied_px, occupied_py

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss, _grad_px, _grad_py):
        occupied_px, occupied_py = ctx.saved_tensors
        scale = -grad_loss.double()[:, None, None]
        grad_px, grad_py = (occupied_px * scale).to(ctx.dtype), (occupied_py * scale).to(ctx.dtype)
        return grad_px, grad_py, None, None, None
