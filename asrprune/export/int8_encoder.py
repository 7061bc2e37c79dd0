"""Make the int8 encoder of a model as an ONNX graph in memory, and cut smaller graphs from it.

An export of a large encoder takes minutes, and cutting its graph takes less than a second. A cut
graph has the shapes of the exported smaller network, so it has the same size and the same speed.
Its outputs need not be exactly equal: the scales of its columns are those of the dense network.
Networks with fewer layers or heads are exported one by one.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.export.onnx_graph import quantised, to_onnx
from asrprune.export.onnx_parts import Part, cut
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.cutting import cut as cut_out
from asrprune.weight_pruning.masks.cutting import has_rows
from asrprune.weight_pruning.masks.groups import CHANNEL
from asrprune.weight_pruning.masks.prunable import VECTOR, Layer

if TYPE_CHECKING:
    import onnx

SECOND = 100  # feature frames
_QUANTISED = ("_quantized", "_scale", "_zero_point")  # the quantiser's three parts of a matrix

_KNOWN: "WeakKeyDictionary[Transducer, Int8Encoder]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Int8Encoder:
    """Hold the dense int8 graph, and the positions of each group's channels in the graph."""

    graph: "onnx.ModelProto"
    places: dict[str, list[tuple[str, int]]]  # group -> names of initialisers, and the axis
    missing: list[str]  # layers of groups that the graph does not hold unchanged
    inputs: dict[str, np.ndarray]  # one chunk, or one second of speech
    streaming: bool

    def without(self, units: Mapping[str, Tensor]) -> "onnx.ModelProto":
        """Return the graph with the kept channels only.

        Args:
            units: the kept units (units,) bool of each group.

        Raises:
            UserError: a parameter of a group is not in the graph.
        """
        from onnx import numpy_helper

        if self.missing:
            raise UserError(
                f"{self.missing[0]} is not in the exported encoder, so smaller widths cannot be "
                "timed. Give the budget in bytes, such as 5MB"
            )
        smaller = copy.deepcopy(self.graph)
        del smaller.graph.value_info[:]  # shapes of the dense graph
        initialisers = {one.name: one for one in smaller.graph.initializer}
        for group, places in self.places.items():
            kept = units[group].cpu().numpy().nonzero()[0]
            for name, axis in places:
                values = numpy_helper.to_array(initialisers[name]).take(kept, axis)
                initialisers[name].CopyFrom(numpy_helper.from_array(values, name))
        return smaller


def int8_encoder(model: Transducer, bank: MaskBank) -> Int8Encoder:
    """Export the dense encoder of a model with channels in memory, in int8.

    The result is kept, so a model is exported once.

    Raises:
        UserError: the model cannot be exported.
    """
    if model in _KNOWN:
        return _KNOWN[model]
    model_copy = copy.deepcopy(model).cpu()  # example inputs are on the CPU
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for group in bank.groups:
            for layer in group.layers:
                if layer.kind == VECTOR:  # the exporter would merge equal biases into one
                    bias = model_copy.get_parameter(layer.name)
                    bias.add_(1e-3 * torch.randn(bias.shape, generator=generator))
    part = cut(model_copy)["encoder"]
    graph = to_onnx(part)
    names = _names(graph, model_copy, bank)
    layers = [(group.name, layer) for group in bank.groups for layer in group.layers]
    missing = [layer.name for _, layer in layers if layer.name not in names]
    places: dict[str, list[tuple[str, int]]] = {group.name: [] for group in bank.groups}
    for group, layer in layers:
        if layer.name in names:
            places[group] += _places(layer, *names[layer.name])
    _KNOWN[model] = Int8Encoder(
        quantised(graph, part.metadata), places, missing, example(part), "T" in part.metadata
    )
    return _KNOWN[model]


def dense_encoder(model: Transducer, bank: MaskBank) -> "onnx.ModelProto":
    """Return the int8 encoder of the dense network, as it is exported.

    Raises:
        UserError: the model cannot be exported.
    """
    if bank.unit == CHANNEL:
        return int8_encoder(model, bank).graph
    return int8_network(model, bank, bank.blocks(0.0))[0]


def int8_network(
    model: Transducer, bank: MaskBank, units: Mapping[str, Tensor]
) -> tuple["onnx.ModelProto", dict[str, np.ndarray]]:
    """Return the int8 encoder of a sub-network, and its inputs: one chunk, or a second of speech.

    Args:
        model: the dense network.
        bank: the masks of the model, of units that can be cut out.
        units: the kept units (units,) bool of each group.

    Raises:
        UserError: the model cannot be exported; or a parameter of a group is not in the graph.
    """
    if bank.unit == CHANNEL:
        encoder = int8_encoder(model, bank)
        return encoder.without(units), encoder.inputs
    model_copy = copy.deepcopy(model).cpu()
    with cut_out(model_copy, bank.groups, units):
        part = cut(model_copy)["encoder"]
        return quantised(to_onnx(part), part.metadata), example(part)


def example(part: Part) -> dict[str, np.ndarray]:
    """Return inputs for one stream: a chunk of it, or one second of speech, as random numbers."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for name, value in part.inputs.items():
        axis = part.batch_axes[name]
        value = value.narrow(axis, value.shape[axis] - 1, 1)  # the last stream is under way
        if name in part.time_axes:
            shape = list(value.shape)
            shape[part.time_axes[name]] = SECOND
            value = torch.zeros(shape)
        if name == "x_lens":
            value = torch.full_like(value, SECOND)
        if value.is_floating_point():
            value = torch.randn(value.shape, generator=generator)
        inputs[name] = value.numpy()
    return inputs


def _names(
    graph: "onnx.ModelProto", model: Transducer, bank: MaskBank
) -> dict[str, tuple[str, bool]]:
    """Return the name of each layer's initialiser, and whether the initialiser is transposed.

    The exporter keeps the names of biases. It transposes matrices and names them by numbers, so
    matrices are found by their values. A layer that is not found is left out.
    """
    from onnx import numpy_helper

    by_name = {one.name: one for one in graph.graph.initializer}
    by_value = {
        (tuple(one.dims), numpy_helper.to_array(one).tobytes()): one.name
        for one in graph.graph.initializer
    }
    found = {}
    for group in bank.groups:
        for layer in group.layers:
            weight = model.get_parameter(layer.name).detach().numpy()
            turned = np.ascontiguousarray(weight.T)
            if f"model.{layer.name}" in by_name:
                found[layer.name] = f"model.{layer.name}", False
            elif (key := (turned.shape, turned.tobytes())) in by_value:
                found[layer.name] = by_value[key], True
    return found


def _places(layer: Layer, name: str, turned: bool) -> list[tuple[str, int]]:
    """Return the initialisers of a layer in the int8 graph that have channels, with their axis."""
    if layer.kind == VECTOR:
        return [(name, 0)]
    if not turned:  # the quantiser changes only products with the matrix on the right
        return [(name, 0 if has_rows(layer) else 1)]
    if has_rows(layer):  # a channel is an output, and has its own scale
        return [(f"{name}{suffix}", 0 if suffix != _QUANTISED[0] else 1) for suffix in _QUANTISED]
    return [(f"{name}{_QUANTISED[0]}", 0)]
