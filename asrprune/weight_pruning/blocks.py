"""Blocks of matrices: their scores, and the levels at which they drop out.

A matrix (R, C) has a grid of blocks, (ceil(R / rows), ceil(C / columns)); values of its blocks are
flat, (blocks,), row by row of the grid. Those at a ragged edge are smaller. There are 250 levels of
sparsity, multiples of 0.004: so tenths and twentieths are exact, and a level fits into a byte.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.errors import UserError, nearest
from asrprune.factory import load_callable
from asrprune.weight_pruning.options import Block as Block
from asrprune.weight_pruning.options import parse_block as parse_block

LEVELS = 250
FLOOR = 0.1  # of each layer's blocks: dropped after all others, where layers compete
_CRITERIA = {"mean_square": torch.square, "l1": torch.abs}
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def grid_of(shape: Sequence[int], block: Block) -> tuple[int, int]:
    """How many blocks a matrix of shape (R, C) has along its rows and columns."""
    rows, columns = shape
    return -(-rows // block.rows), -(-columns // block.columns)


def block_sizes(shape: Sequence[int], block: Block) -> Tensor:
    """The entries (blocks,) int32 that each block of a matrix of shape (R, C) really has."""
    rows, columns = (
        torch.full((count,), step, dtype=torch.int32)
        for count, step in zip(grid_of(shape, block), (block.rows, block.columns), strict=True)
    )
    rows[-1] -= len(rows) * block.rows - shape[0]
    columns[-1] -= len(columns) * block.columns - shape[1]
    return (rows[:, None] * columns).flatten()


def block_scores(matrix: Tensor, block: Block, criterion: str = "mean_square") -> Tensor:
    """How much each block matters: the mean of its entries' squares or magnitudes.

    Sums run over a block's rows, then its columns, in order: equal for any number of threads.

    Args:
        matrix: (R, C) of any floating type.
        criterion: ``mean_square`` or ``l1``; or ``package.module:callable``, what each entry
            counts: some rows (r, C) float32 -> (r, C), at least 0.

    Returns:
        (blocks,) float32; not finite where a block has such an entry, or, with ``mean_square``, one
        above 1e19.

    Raises:
        UserError: there is no such criterion.
    """
    count = _counting(criterion)
    matrix = matrix.detach()
    by_row = count(matrix[:: block.rows].float())  # (grid rows, C)
    for first in range(1, min(block.rows, len(matrix))):
        part = matrix[first :: block.rows].float()
        by_row[: len(part)] += count(part)
    sums = by_row[:, :: block.columns].contiguous()  # (grid rows, grid columns)
    for first in range(1, min(block.columns, matrix.shape[1])):
        part = by_row[:, first :: block.columns]
        sums[:, : part.shape[1]] += part
    return sums.flatten() / block_sizes(matrix.shape, block).to(sums.device)


def _counting(criterion: str) -> Callable[[Tensor], Tensor]:
    if criterion in _CRITERIA:
        return _CRITERIA[criterion]
    if ":" in criterion:
        return load_callable("weight_pruning.criterion", criterion)
    raise UserError(
        f"weight_pruning.criterion={criterion}: choose one of {', '.join(_CRITERIA)}, or name your "
        f"own as package.module:callable{nearest(criterion, _CRITERIA)}"
    )


def dropped(level: int, blocks: int) -> int:
    """How many of so many blocks are dropped at a level: level/250 of them, rounded half up."""
    return (2 * level * blocks + LEVELS) // (2 * LEVELS)


def level_of(sparsity: float) -> int:
    """The level (0 to 250) that is nearest to a sparsity.

    Raises:
        UserError: the sparsity is not between 0 and 1.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"sparsity {sparsity}: must be between 0 and 1")
    return math.floor(LEVELS * sparsity + 0.5)


def drop_levels(
    scores: Sequence[Tensor],
    group: int = 0,
    scope: str = "layer",
    multiples: Sequence[int] | None = None,
) -> list[Tensor]:
    """The level at which each block drops out: the first that drops more blocks than its rank.

    Ranks go by score, lowest first, and then by index; inside of each layer, over all layers
    together, or, with N:M, inside of each group of M blocks.

    Args:
        scores: of each layer (blocks,) float32 without NaN.
        group: M of N:M, else 0.
        scope: ``layer`` or ``global``.
        multiples: of each layer, see :func:`kept_counts`; None: 1. Only ``scope=layer`` has others.

    Returns:
        of each layer (blocks,) uint8, in 1..250; see :func:`kept`.

    Raises:
        UserError: there is no such scope.
    """
    if scope not in ("layer", "global"):
        raise UserError(f"weight_pruning.scope={scope}: choose one of layer, global")
    if group:
        return [_levels_of_groups(some, group) for some in scores]
    if scope == "layer" or len(scores) < 2:
        steps = multiples or [1] * len(scores)
        return [_levels_of_ranks(*pair) for pair in zip(scores, steps, strict=True)]
    levels = _levels_of_ranks(torch.cat([some.to(scores[0].device) for some in scores]))
    parts = levels.split([len(some) for some in scores])
    # copies, for one layer's levels are not to hold the memory of all
    return [part.clone().to(some.device) for part, some in zip(parts, scores, strict=True)]


def comparable(scores: Tensor) -> Tensor:
    """Scores of a layer's blocks (blocks,) that can be ranked with those of other layers.

    They are divided by their mean, for layers have weights of very different sizes, and the best
    tenth is put above all others: no layer loses more than nine tenths of its blocks before every
    layer has.
    """
    mean = scores.mean()
    scaled = scores / mean if mean > 0 else scores
    best = _levels_of_ranks(scores) > level_of(1 - FLOOR)
    # Others are at most 10 times the mean. A product keeps the order of very small scores, too.
    return torch.where(best, scaled.clamp(min=1e-20) * 1e25, scaled)


def kept_counts(blocks: int, multiple: int = 1) -> list[int]:
    """How many of so many blocks are kept at each level, 0 to 250: at 0 all, at 250 none.

    Counts between are rounded to the nearest ``multiple``, half up, and are at least one multiple.
    """
    counts = [blocks - dropped(level, blocks) for level in range(LEVELS + 1)]
    if multiple > 1:
        counts[1:-1] = [
            min(blocks, max(multiple, (count + multiple // 2) // multiple * multiple))
            for count in counts[1:-1]
        ]
    return counts


def _levels_of_ranks(scores: Tensor, multiple: int = 1) -> Tensor:
    """Drop levels (n,) uint8 of scores (n,) that compete with each other."""
    bits = (scores.float() + 0).view(torch.int32)  # -0 is 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # int32 in the order of float32
    # score and index in one number: several times faster than a stable sort of scores
    keys = (bits.long() << 32) + torch.arange(len(bits), device=bits.device)
    order = _sorted(keys).bitwise_and_(0xFFFFFFFF)
    bounds = len(scores) - torch.tensor(kept_counts(len(scores), multiple))
    levels = torch.arange(1, LEVELS + 1, dtype=torch.uint8).repeat_interleave(bounds.diff())
    levels = levels.to(scores.device)
    return torch.empty_like(levels).scatter_(0, order, levels)


def _sorted(keys: Tensor) -> Tensor:
    if keys.device.type == "cpu":  # numpy sorts integers several times faster than torch
        return torch.from_numpy(np.sort(keys.numpy()))
    return keys.sort().values


def _levels_of_groups(scores: Tensor, group: int) -> Tensor:
    """Drop levels (n,) uint8 of scores (n,) that compete inside of each ``group`` of them."""
    columns = list(scores.view(-1, group).T.contiguous())
    ranks = [torch.zeros_like(column, dtype=torch.int16) for column in columns]
    for second in range(group):
        for first in range(second):
            in_order = columns[first] <= columns[second]
            ranks[second] += in_order
            ranks[first] += ~in_order
    # the least level at which `dropped` is above the rank
    levels = torch.stack(ranks, 1).mul_(LEVELS).add_(LEVELS // 2 + group - 1)
    return levels.floor_divide_(group).to(torch.uint8).flatten()


def kept(levels: Tensor, sparsity: float) -> Tensor:
    """Which blocks are kept at a sparsity, rounded to the nearest level: (n,) bool.

    What is kept at a sparsity is kept at every lower one; at 0 everything is, at 1 nothing.

    Raises:
        UserError: the sparsity is not between 0 and 1.
    """
    return levels > level_of(sparsity)


def expand(values: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """Give each entry of a matrix its block's value: (blocks,) of any type becomes (R, C).

    The result of 1x1 blocks is a view of ``values``.
    """
    rows, columns = grid_of(shape, block)
    values = values.view(rows, 1, columns, 1).expand(rows, block.rows, columns, block.columns)
    values = values.reshape(rows * block.rows, columns * block.columns)
    return values[: shape[0], : shape[1]].contiguous()


def masked(matrix: Tensor, kept: Tensor, block: Block) -> Tensor:
    """A copy of a matrix (R, C) with zeros, all of them +0, in the blocks that are not ``kept``.

    It can be differentiated: gradients outside of kept blocks are zero. NaN does not leak through.

    Args:
        kept: (blocks,) bool.
    """
    rows, columns = grid_of(matrix.shape, block)
    if (rows * block.rows, columns * block.columns) == tuple(matrix.shape):
        values = matrix.reshape(rows, block.rows, columns, block.columns)
        kept = kept.view(rows, 1, columns, 1)
    else:
        values, kept = matrix, expand(kept, matrix.shape, block)
    if values.requires_grad and torch.is_grad_enabled():
        return values.masked_fill(~kept, 0).view(matrix.shape)
    # bits times 1 or 0: the same, and ten times faster
    bits = values.detach().view(_BITS[values.element_size()])
    return (bits * kept).view(matrix.dtype).view(matrix.shape)
