"""Count the entries of a matrix in its kept blocks."""

import torch
from torch import Tensor

from asrprune.weight_pruning.masks.blocks import Block, grid_of


def elements(kept: Tensor, shape: tuple[int, int], block: Block) -> int:
    """Return how many entries of a matrix of shape (R, C) its kept blocks (blocks,) bool have."""
    grid, (rows, columns) = grid_of(shape, block), shape
    count = int(torch.count_nonzero(kept)) * block.rows * block.columns
    last_row, last_column = kept.view(grid)[-1], kept.view(grid)[:, -1]
    over_rows, over_columns = -rows % block.rows, -columns % block.columns  # of the edge blocks
    count -= int(torch.count_nonzero(last_row)) * over_rows * block.columns
    count -= int(torch.count_nonzero(last_column)) * over_columns * block.rows
    return count + int(kept[-1]) * over_rows * over_columns
