"""Compute the runnable size of sub-networks: bytes of the int8 files that a runtime loads.

The sub-networks have fewer units than the dense network. The dense network is exported once. The
bytes of a channel follow from the format of the files. A weight of a quantised matrix takes a byte.
Each output of a quantised matrix has a scale and a zero point. Biases stay in float32.

The operations of a layer also take bytes. So the network with a single layer is exported too, and
the rest of the difference is divided among the layers. A network with fewer heads may have other
operations, so one such network is exported too. An export checks the bytes of its written files.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from asrprune.export.int8_encoder import dense_encoder, int8_network
from asrprune.export.onnx_graph import QUANTISED, check_packages, quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.groups import HEAD, LAYER, Group
from asrprune.weight_pruning.masks.prunable import OTHER, VECTOR

FLOAT32, SCALE, ZERO_POINT, INT8 = 4, 4, 1, 1  # bytes of a number of each type
# Bytes by which layers of the same shape differ, because the names of their operations have more or
# fewer digits. The computed size must not be below the written size.
_SPREAD = 16


_KNOWN: "WeakKeyDictionary[Transducer, Runnable]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Runnable:
    """Hold the bytes of encoder.int8.onnx, decoder.onnx and joiner.int8.onnx together."""

    dense: int
    units: dict[str, Tensor]  # name of a group -> bytes of each unit, (units,) int64
    more: int = 0  # bytes of operations that a network without some units has in addition

    def of(self, units: Mapping[str, Tensor]) -> int:
        """Return the bytes of a network that keeps these units (units,) bool of each group."""
        return self.dense - sum(self.saved(name, units[name]) for name in self.units)

    def saved(self, group: str, kept: Tensor) -> int:
        """Return the bytes that a group saves if it keeps units (units,) bool."""
        dropped = ~kept.cpu()
        return int(self.units[group][dropped].sum()) - self.more * bool(dropped.any())


def runnable(model: Transducer, bank: MaskBank) -> Runnable:
    """Export the dense network in memory, and compute the bytes of each unit.

    Sizes follow from shapes alone, so they are computed once for a model.

    Raises:
        UserError: a package for the export is missing; the model cannot be exported.
    """
    if model in _KNOWN:
        return _KNOWN[model]
    check_packages()
    encoder = dense_encoder(model, bank).ByteSize()
    dense = encoder
    # a copy on the CPU, because example inputs are on the CPU
    for name, part in cut(copy.deepcopy(model).cpu()).items():
        if name == "encoder":
            continue
        proto = to_onnx(part)
        if name in QUANTISED:
            proto = quantised(proto, part.metadata)
        dense += proto.ByteSize()
    units = {group.name: _weights(group) for group in bank.groups}
    more = 0
    if bank.unit in (LAYER, HEAD) and min(map(len, units.values())) > 1:
        [(name, weights)] = units.items()
        few = torch.arange(len(weights)) < (
            _heads_to_measure(model, bank) if bank.unit == HEAD else 1
        )
        rest = encoder - int8_network(model, bank, {name: few})[0].ByteSize()
        rest -= int(weights[~few].sum())  # bytes of operations, without the weights
        if bank.unit == LAYER:
            weights += rest // (len(weights) - 1) - _SPREAD
        else:
            more = max(0, _SPREAD - rest)
    _KNOWN[model] = Runnable(dense, units, more)
    return _KNOWN[model]


def _heads_to_measure(model: Transducer, bank: MaskBank) -> int:
    """Return the number of heads of the network to export for a comparison with the dense network.

    This is the largest number of heads whose past does not fill its rows. If there is no such
    number, it is all heads but one. A network whose past does not fill its rows has more operations
    than the dense network, see `onnx_parts`. A network of one head has fewer operations.
    """
    encoder, most = model.encoder, len(bank.blocks(0.0)["encoder.heads"]) - 1
    if not getattr(encoder, "streaming", False):
        return most
    used = 2 * encoder.left_context * encoder.head_dim
    counts = range(most, 0, -1)
    return next((count for count in counts if count * used % encoder.output_dim), most)


def _weights(group: Group) -> Tensor:
    """Return the bytes that the weights of each unit of a group take, (units,) int64."""
    total = torch.zeros(group.units, dtype=torch.int64)
    for layer in group.layers:
        rows, columns = layer.block.rows, layer.block.columns
        if layer.kind in (VECTOR, OTHER):
            size = FLOAT32 * rows * columns
        else:
            size = INT8 * rows * columns
            if columns == layer.columns:  # each row of the block is an output with its own scale
                size += rows * (SCALE + ZERO_POINT)
        layer.add_to(total, torch.full((layer.blocks,), size))
    return total
