"""Pack masked weights for a file: the kept weights alone, and a bit for each block.

A packed parameter is a dict of plain values and tensors, which ``torch.load(weights_only=True)``
reads. It holds ``shape`` of the parameter, ``block`` (rows, columns), ``kept`` (bytes,) uint8, a
bit for each block, and ``values``, the kept weights in the order of the matrix's rows.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import Choice, MaskBank
from asrprune.weight_pruning.masks.bits import pack_bits, unpack_bits
from asrprune.weight_pruning.masks.blocks import Block, expand, grid_of
from asrprune.weight_pruning.masks.prunable import as_matrix


def packed_state(state: Mapping[str, Any], bank: MaskBank, choice: Choice) -> dict[str, Any]:
    """Return a state dict whose masked parameters are packed.

    All names of a tied parameter are packed.

    Args:
        state: state dict of the bank's module, or of a module like it.
        bank: masks of blocks.
        choice: the sub-network to keep.

    Raises:
        UserError: the state lacks a layer.
    """
    kept = bank.blocks_of_layers(choice)
    layers = {layer.name: layer for layer in bank.layers}
    names = {**{name: name for name in layers}, **bank.tied()}
    if missing := [name for name in names if name not in state]:
        raise UserError(f"the masks are of another model: the weights given have no {missing[0]}")
    packed = {}
    for name, first in names.items():
        weight, layer, blocks = state[name].cpu(), layers[first], kept[first].cpu()
        mask = expand(blocks, layer.shape, layer.block)
        packed[name] = {
            "shape": list(weight.shape),
            "block": [layer.block.rows, layer.block.columns],
            "kept": pack_bits(blocks),
            "values": as_matrix(weight)[mask],
        }
    return {name: packed.get(name, value) for name, value in state.items()}


def unpacked_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state dict in which packed parameters are tensors again, with zeros.

    Raises:
        UserError: a packed parameter is damaged.
    """
    return {
        name: _unpacked(name, value) if isinstance(value, Mapping) else value
        for name, value in state.items()
    }


def _unpacked(name: str, packed: Mapping[str, Any]) -> Tensor:
    try:
        weight = packed["values"].new_zeros(packed["shape"])
        matrix, block = as_matrix(weight), Block(*packed["block"])
        kept = unpack_bits(packed["kept"], math.prod(grid_of(matrix.shape, block)))
        matrix[expand(kept, matrix.shape, block)] = packed["values"]
    except (KeyError, TypeError, RuntimeError, IndexError, ValueError) as error:
        raise UserError(
            f"the packed weights of {name} are damaged: {' '.join(str(error).split())}"
        ) from error
    return weight
