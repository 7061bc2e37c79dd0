"""Computes the runnable size of sub-networks: bytes of the int8 files that a runtime loads.

The sub-networks have fewer channels than the dense network. The dense network is exported once. How
many bytes a channel takes follows from the format of the files. A weight of a quantised matrix
takes a byte. Each output of a quantised matrix has a scale and a zero point. Biases stay in
float32. An export checks the bytes of the files that it has written.
"""

import copy
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from asrprune.export.int8_encoder import int8_encoder
from asrprune.export.onnx_graph import QUANTISED, check_packages, quantised, to_onnx
from asrprune.export.onnx_parts import cut
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.cutting import has_rows
from asrprune.weight_pruning.groups import Group
from asrprune.weight_pruning.prunable import VECTOR

FLOAT32, SCALE, ZERO_POINT, INT8 = 4, 4, 1, 1  # bytes of a number of each type


_KNOWN: "WeakKeyDictionary[Transducer, Runnable]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Runnable:
    """Bytes of encoder.int8.onnx, decoder.onnx and joiner.int8.onnx together."""

    dense: int
    channels: dict[str, int]  # name of a group -> bytes of one of its channels

    def of(self, units: dict[str, Tensor]) -> int:
        """Return the bytes of a network that keeps these units (units,) bool of each group."""
        return self.dense - sum(
            bytes_ * int((~units[name]).sum()) for name, bytes_ in self.channels.items()
        )


def runnable(model: Transducer, bank: MaskBank) -> Runnable:
    """Export the dense network in memory, and compute the bytes of a channel.

    Sizes follow from shapes alone, so they are computed once for a model.

    Raises:
        UserError: a package for the export is missing; the model cannot be exported.
    """
    if model in _KNOWN:
        return _KNOWN[model]
    check_packages()
    dense = int8_encoder(model, bank).graph.ByteSize()
    # a copy on the CPU, because example inputs are on the CPU
    for name, part in cut(copy.deepcopy(model).cpu()).items():
        if name == "encoder":
            continue
        proto = to_onnx(part)
        if name in QUANTISED:
            proto = quantised(proto, part.metadata)
        dense += proto.ByteSize()
    _KNOWN[model] = Runnable(dense, {group.name: _channel(group) for group in bank.groups})
    return _KNOWN[model]


def _channel(group: Group) -> int:
    """Return the bytes of one channel of a group."""
    total = 0
    for layer in group.layers:
        if layer.kind == VECTOR:
            total += FLOAT32
        elif has_rows(layer):  # a channel is an output
            total += INT8 * layer.columns + SCALE + ZERO_POINT
        else:
            total += INT8 * layer.rows
    return total
