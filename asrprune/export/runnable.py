"""Runnable size: bytes of the int8 files that a runtime loads, of networks with fewer channels.

The dense network is exported once. A channel's share of its files follows from the format: a weight
of a quantised matrix takes a byte, each output of one has a scale and a zero point, and biases stay
in float32. An export checks the bytes of what it has written.
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

FLOAT32, SCALE, ZERO_POINT, INT8 = 4, 4, 1, 1  # bytes of one of each


_KNOWN: "WeakKeyDictionary[Transducer, Runnable]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Runnable:
    """Bytes of encoder.int8.onnx, decoder.onnx and joiner.int8.onnx."""

    dense: int
    channels: dict[str, int]  # name of a group -> bytes of one of its channels

    def of(self, units: dict[str, Tensor]) -> int:
        """The bytes of a network that keeps these units (units,) bool of each group."""
        return self.dense - sum(
            bytes_ * int((~units[name]).sum()) for name, bytes_ in self.channels.items()
        )


def runnable(model: Transducer, bank: MaskBank) -> Runnable:
    """Export the dense network, in memory, and work out what a channel takes.

    Sizes follow from shapes alone, so that they are worked out once for a model.

    Raises:
        UserError: a package that exports is missing; the model cannot be exported.
    """
    if model in _KNOWN:
        return _KNOWN[model]
    check_packages()
    dense = int8_encoder(model, bank).graph.ByteSize()
    # on the CPU, where example inputs are
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
    total = 0
    for layer in group.layers:
        if layer.kind == VECTOR:
            total += FLOAT32
        elif has_rows(layer):  # a channel is an output
            total += INT8 * layer.columns + SCALE + ZERO_POINT
        else:
            total += INT8 * layer.rows
    return total
