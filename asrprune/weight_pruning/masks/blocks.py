"""Score the blocks of matrices, and find the level at which each block drops.

A matrix (R, C) has a grid of (ceil(R / rows), ceil(C / columns)) blocks. Values of blocks are flat,
(blocks,), row by row of the grid. Blocks at a ragged edge are smaller. There are 250 levels of
sparsity, multiples of 0.004. So tenths and twentieths are exact, and a level fits into a byte.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from asrprune.base.errors import UserError, nearest
from asrprune.base.factory import load_callable
from asrprune.weight_pruning.options import Block as Block
from asrprune.weight_pruning.options import parse_block as parse_block

LEVELS = 250
FLOOR = 0.1  # share of each layer's blocks that drop last, where layers compete
_CRITERIA = {"mean_square": torch.square, "l1": torch.abs}
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of an element


def grid_of(shape: Sequence[int], block: Block) -> tuple[int, int]:
    """Return the shape of a matrix's grid of blocks: (ceil(R / rows), ceil(C / columns))."""
    rows, columns = shape
    return -(-rows // block.rows), -(-columns // block.columns)


def block_sizes(shape: Sequence[int], block: Block) -> Tensor:
    """Return the number of entries of each block of a matrix of shape (R, C): (blocks,) int32.

    Blocks at a ragged edge count only the entries that exist.
    """
    rows, columns = (
        torch.full((count,), step, dtype=torch.int32)
        for count, step in zip(grid_of(shape, block), (block.rows, block.columns), strict=True)
    )
    rows[-1] -= len(rows) * block.rows - shape[0]
    columns[-1] -= len(columns) * block.columns - shape[1]
    return (rows[:, None] * columns).flatten()


def block_scores(matrix: Tensor, block: Block, criterion: str = "mean_square") -> Tensor:
    """Return the score of each block: the mean of its entries' squares or magnitudes.

    Sums run over a block's rows, then its columns, in order. So they are equal for any number of
    threads.

    Args:
        matrix: (R, C) of any floating type.
        block: the shape of the blocks.
        criterion: ``mean_square``, ``l1``, or ``package.module:callable``. The callable takes some
            rows (r, C) float32 and returns what each entry counts, (r, C), at least 0.

    Returns:
        (blocks,) float32. A score is not finite if an entry of the block is not finite or, with
        ``mean_square``, above 1e19.

    Raises:
        UserError: the criterion is unknown.
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
    """Return how many of ``blocks`` blocks drop at a level: level/250 of them, rounded half up."""
    return (2 * level * blocks + LEVELS) // (2 * LEVELS)


def level_of(sparsity: float) -> int:
    """Return the level (0 to 250) that is nearest to a sparsity.

    Raises:
        UserError: the sparsity is not from 0 to 1.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"sparsity {sparsity}: must be between 0 and 1")
    return math.floor(LEVELS * sparsity + 0.5)


def check_finite(name: str, scores: Tensor) -> None:
    """Check that scores can be ranked.

    Raises:
        UserError: a score is NaN or infinite.
    """
    if not torch.isfinite(scores).all():
        raise UserError(
            f"cannot rank the weights of {name}: some are NaN, infinite or beyond 1e19. Training "
            "has diverged; go on from an earlier checkpoint."
        )


def drop_levels(
    scores: Sequence[Tensor],
    group: int = 0,
    scope: str = "layer",
    multiples: Sequence[int] | None = None,
) -> list[Tensor]:
    """Return the level at which each block drops: the first that drops more blocks than its rank.

    Blocks are ranked by score, lowest first, and then by index. They compete within each layer,
    over all layers together, or, with N:M, within each group of M blocks.

    Args:
        scores: of each layer, (blocks,) float32 without NaN.
        group: M of N:M, else 0.
        scope: ``layer`` or ``global``.
        multiples: of each layer, see :func:`kept_counts`. None: 0. Only ``scope=layer`` has others.

    Returns:
        of each layer, (blocks,) uint8 from 1 to 250; see :func:`kept`.

    Raises:
        UserError: the scope is unknown.
    """
    if scope not in ("layer", "global"):
        raise UserError(f"weight_pruning.scope={scope}: choose one of layer, global")
    if group:
        return [_levels_of_groups(some, group) for some in scores]
    if scope == "layer" or len(scores) < 2:
        steps = multiples or [0] * len(scores)
        return [_levels_of_ranks(*pair) for pair in zip(scores, steps, strict=True)]
    levels = _levels_of_ranks(torch.cat([some.to(scores[0].device) for some in scores]))
    parts = levels.split([len(some) for some in scores])
    # copies: a view of one layer's levels would keep the memory of all layers
    return [part.clone().to(some.device) for part, some in zip(parts, scores, strict=True)]


def comparable(scores: Tensor) -> Tensor:
    """Scale scores (blocks,) of one layer so that they compete with those of other layers.

    Layers have weights of very different sizes, so scores are divided by their mean. The best tenth
    of them is put above all others. So no layer loses more than nine tenths of its blocks before
    every layer has.
    """
    mean = scores.mean()
    scaled = scores / mean if mean > 0 else scores
    best = _levels_of_ranks(scores) > level_of(1 - FLOOR)
    # All others are at most 10 times the mean. Products keep the order of very small scores.
    return torch.where(best, scaled.clamp(min=1e-20) * 1e25, scaled)


def kept_counts(blocks: int, multiple: int = 0) -> list[int]:
    """Return how many of ``blocks`` blocks are kept at each level, 0 to 250: at 0 all, at 250 none.

    Counts between are rounded to the nearest ``multiple``, half up, and are at least one multiple.
    With ``multiple`` 0, counts are not rounded, and may be 0.
    """
    counts = [blocks - dropped(level, blocks) for level in range(LEVELS + 1)]
    if multiple:
        counts[1:-1] = [
            min(blocks, max(multiple, (count + multiple // 2) // multiple * multiple))
            for count in counts[1:-1]
        ]
    return counts


def _levels_of_ranks(scores: Tensor, multiple: int = 0) -> Tensor:
    """Return the drop levels (n,) uint8 of scores (n,) that compete with each other."""
    bits = (scores.float() + 0).view(torch.int32)  # + 0 makes -0 a 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # int32 that sorts as float32 does
    # sort score and index as one number: several times faster than a stable sort of scores
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
    """Return the drop levels (n,) uint8 of scores (n,) that compete in runs of ``group``."""
    columns = list(scores.view(-1, group).T.contiguous())
    ranks = [torch.zeros_like(column, dtype=torch.int16) for column in columns]
    for second in range(group):
        for first in range(second):
            in_order = columns[first] <= columns[second]
            ranks[second] += in_order
            ranks[first] += ~in_order
    # the lowest level at which `dropped` exceeds the rank
    levels = torch.stack(ranks, 1).mul_(LEVELS).add_(LEVELS // 2 + group - 1)
    return levels.floor_divide_(group).to(torch.uint8).flatten()


def kept(levels: Tensor, sparsity: float) -> Tensor:
    """Return which blocks (n,) bool are kept at a sparsity, rounded to the nearest level.

    Masks are nested: a block kept at one sparsity is kept at every lower sparsity. At 0 all blocks
    are kept, at 1 none.

    Raises:
        UserError: the sparsity is not from 0 to 1.
    """
    return levels > level_of(sparsity)


def expand(values: Tensor, shape: Sequence[int], block: Block) -> Tensor:
    """Give each entry of a matrix its block's value: (blocks,) of any type becomes (R, C).

    For 1x1 blocks the result is a view of ``values``.
    """
    rows, columns = grid_of(shape, block)
    values = values.view(rows, 1, columns, 1).expand(rows, block.rows, columns, block.columns)
    values = values.reshape(rows * block.rows, columns * block.columns)
    return values[: shape[0], : shape[1]].contiguous()


def masked(matrix: Tensor, kept: Tensor, block: Block) -> Tensor:
    """Return a copy of a matrix (R, C) with zeros, all of them +0, in the blocks that are not kept.

    The copy can be differentiated: gradients outside of kept blocks are zero. NaN in a dropped
    block becomes +0 too.

    Args:
        matrix: (R, C).
        kept: (blocks,) bool.
        block: the shape of the blocks.
    """
    rows, columns = grid_of(matrix.shape, block)
    if (rows * block.rows, columns * block.columns) == tuple(matrix.shape):
        values = matrix.reshape(rows, block.rows, columns, block.columns)
        kept = kept.view(rows, 1, columns, 1)
    else:
        values, kept = matrix, expand(kept, matrix.shape, block)
    if values.requires_grad and torch.is_grad_enabled():
        return values.masked_fill(~kept, 0).view(matrix.shape)
    # bits times 1 or 0 give the same, ten times faster
    bits = values.detach().view(_BITS[values.element_size()])
    return (bits * kept).view(matrix.dtype).view(matrix.shape)
