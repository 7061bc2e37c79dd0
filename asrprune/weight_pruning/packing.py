"""A sub-network on disk: the kept blocks of each layer, where they are, and all else as it is.

Plain tensors in dicts, which ``torch.load(weights_only=True)`` reads. Unpacking gives back every
bit of the masked weights, under the module's own names.
"""

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrprune.errors import UserError
from asrprune.files import atomic_path
from asrprune.weight_pruning.bank import Choice, MaskBank
from asrprune.weight_pruning.bits import pack_bits, unpack_bits
from asrprune.weight_pruning.blocks import from_blocks, grid_of, parse_block, to_blocks
from asrprune.weight_pruning.groups import CHANNEL
from asrprune.weight_pruning.prunable import as_matrix
from asrprune.weight_pruning.sizes import index_bytes

FORMAT = "asrprune sub-network 1"


def pack(module_state: Mapping[str, Any], bank: MaskBank, choice: Choice) -> dict[str, Any]:
    """The sub-network of a state dict.

    Args:
        module_state: of the bank's module, or of one like it, such as an average of checkpoints.

    Returns:
        on the CPU: ``names``: of all entries, in order; ``dense``: what is not pruned, and layers
        that keep all blocks; ``layers``: by name ``shape``, ``values`` (kept blocks, rows * columns
        of a block) and ``index``: the numbers of the kept blocks (kept,) int32, or, where it is
        smaller, a bit for each block (ceil(blocks / 8),) uint8; ``tied``: further names of entries,
        with the name of the entry; ``block``: as it is written in options.

    Raises:
        UserError: the state lacks a layer, or has another shape for it; channels are pruned.
    """
    if bank.unit == CHANNEL:
        raise UserError("channels are cut out, and not packed: see cut_state")
    blocks, parameters = bank.blocks_of_layers(choice), bank.parameters()
    layers: dict[str, dict[str, Any]] = {}
    for layer in bank.layers:
        weight, kept = module_state.get(layer.name), blocks[layer.name].cpu()
        _check(layer.name, weight, parameters[layer.name])
        if not kept.all():
            matrix = as_matrix(weight.detach().cpu())
            values = to_blocks(matrix, layer.block)[kept]
            layers[layer.name] = {
                "shape": list(weight.shape),
                "values": values,
                "index": _index(kept),
            }
    tied = {
        name: first
        for name, first in bank.tied().items()
        if first in layers and name in module_state
    }
    rest = {name: entry for name, entry in module_state.items() if name not in {*layers, *tied}}
    return {
        "format": FORMAT,
        "block": str(bank.block),
        "names": list(module_state),
        "layers": layers,
        "dense": _compact(rest),
        "tied": tied,
    }


def unpack(packed: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of :func:`pack`, with exact zeros (+0) where weights are masked."""
    block = parse_block(packed["block"])
    weights: dict[str, Tensor] = {}
    for name, layer in packed["layers"].items():
        shape, values, index = layer["shape"], layer["values"], layer["index"]
        matrix_shape = (shape[0], math.prod(shape[1:]))
        count = math.prod(grid_of(matrix_shape, block))
        kept = unpack_bits(index, count) if index.dtype == torch.uint8 else index.long()
        blocks = values.new_zeros(count, block.rows * block.columns)
        blocks[kept] = values
        weights[name] = from_blocks(blocks, matrix_shape, block).view(shape)
    weights.update({name: weights[first] for name, first in packed["tied"].items()})
    weights.update(packed["dense"])
    return {name: weights[name] for name in packed["names"]}


def packed_bytes(packed: Mapping[str, Any]) -> int:
    """What the tensors take; the file has some hundred bytes a tensor more."""
    tensors = [entry for entry in packed["dense"].values() if isinstance(entry, Tensor)]
    tensors += [layer[part] for layer in packed["layers"].values() for part in ("values", "index")]
    # tied entries are one tensor, in memory and in the file
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.numel()}.values())


def write_packed(packed: Mapping[str, Any], path: str | Path) -> None:
    """Write a packed sub-network, whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    data = io.BytesIO()  # torch.save to a file hides the system's error
    torch.save(packed, data)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def read_packed(path: str | Path) -> dict[str, Any]:
    """What :func:`write_packed` wrote.

    Raises:
        UserError: the file is missing, damaged or another one.
    """
    try:
        data = io.BytesIO(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    try:
        packed = torch.load(data, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged, or no file of PyTorch; pack it again") from error
    if not isinstance(packed, dict) or packed.get("format") != FORMAT:
        raise UserError(f"{path} is no packed sub-network ({FORMAT!r})")
    return packed


def _check(name: str, weight: Tensor | None, parameter: Tensor) -> None:
    """Refuse a state that is of another model."""
    if weight is None:
        raise UserError(f"the masks are of another model: the weights given have no {name}")
    if weight.shape != parameter.shape:
        raise UserError(
            f"the masks are of another model: {name} is {tuple(parameter.shape)} there and "
            f"{tuple(weight.shape)} in the weights given"
        )


def _index(kept: Tensor) -> Tensor:
    """Where the kept blocks are, as int32 numbers or as bits."""
    numbers = kept.nonzero().view(-1).to(torch.int32)
    return numbers if numbers.nbytes == index_bytes(len(numbers), len(kept)) else pack_bits(kept)


def _compact(state: Mapping[str, Any]) -> dict[str, Any]:
    """On the CPU, and without what shares a tensor's memory: a file would hold that too.

    What is one tensor under two names stays one.
    """
    copies: dict[tuple, Tensor] = {}
    result = {}
    for name, entry in state.items():
        if isinstance(entry, Tensor):
            key = (entry.data_ptr(), entry.dtype, entry.shape, entry.stride())
            if key not in copies:
                copies[key] = entry.detach().cpu().clone()
            entry = copies[key]
        result[name] = entry
    return result
