"""Effective parameters of a sub-network, and the bytes of its kept blocks with their index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from asrprune.weight_pruning.bits import packed_size
from asrprune.weight_pruning.blocks import Block, grid_of
from asrprune.weight_pruning.prunable import VECTOR, Layer


@dataclass(frozen=True)
class Sizes:
    """Of a whole model: what is never pruned, and what a choice keeps of the layers.

    Bytes are a count for comparisons of masks. No file has them: a runtime loads the zeros of
    masked blocks too. They count the kept blocks in full, and for each layer that drops any an
    index of the kept ones, as a bitmap (a bit a block) or as int32 numbers, whichever is smaller.
    Buffers count, tied parameters once.
    """

    parameters: int  # effective: kept and never pruned
    dense_parameters: int
    float32_bytes: int  # everything in floating point as float32
    int8_bytes: int  # the layers as int8 with a float32 scale a row, all else as float32


def elements(kept: Tensor, shape: tuple[int, int], block: Block) -> int:
    """How many entries of a matrix of shape (R, C) its kept blocks (blocks,) bool have."""
    grid, (rows, columns) = grid_of(shape, block), shape
    count = int(torch.count_nonzero(kept)) * block.rows * block.columns
    last_row, last_column = kept.view(grid)[-1], kept.view(grid)[:, -1]
    over_rows, over_columns = -rows % block.rows, -columns % block.columns  # of the edge blocks
    count -= int(torch.count_nonzero(last_row)) * over_rows * block.columns
    count -= int(torch.count_nonzero(last_column)) * over_columns * block.rows
    return count + int(kept[-1]) * over_rows * over_columns


def index_bytes(kept: int, blocks: int) -> int:
    """What it takes to say which of the blocks are kept."""
    return 0 if kept == blocks else min(packed_size(blocks), 4 * kept)


def model_sizes(module: nn.Module, layers: Sequence[Layer], blocks: Mapping[str, Tensor]) -> Sizes:
    """The sizes of ``module`` with the kept ``blocks`` of its layers."""
    dense = sum(parameter.numel() for parameter in module.parameters())
    state = module.state_dict().values()
    stored = {entry.data_ptr(): entry for entry in state if isinstance(entry, Tensor)}
    for layer in layers:
        stored.pop(module.get_parameter(layer.name).data_ptr())
    rest = sum(_float32_bytes(tensor) for tensor in stored.values())

    effective, float32, int8 = dense, rest, rest
    for layer in layers:
        kept = blocks[layer.name]
        count = int(torch.count_nonzero(kept))
        effective -= layer.size
        effective += elements(kept, layer.shape, layer.block)
        # edge blocks are stored in full, a layer that drops nothing as it is
        values = count * layer.block.rows * layer.block.columns
        values = layer.size if count == len(kept) else values
        index = index_bytes(count, len(kept))
        float32 += 4 * values + index
        int8 += 4 * values if layer.kind == VECTOR else values + 4 * layer.rows + index
    return Sizes(effective, dense, float32, int8)


def _float32_bytes(tensor: Tensor) -> int:
    return tensor.numel() * (4 if tensor.is_floating_point() else tensor.element_size())
