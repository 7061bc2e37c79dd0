"""Cut units out of a module, which then computes with smaller matrices, or with fewer layers.

`cut` does this for a while. Gradients land in the full parameters, so a step of a sub-network costs
less than a step of the dense network. `cut_state` does this for good: it returns the state of a
smaller module of the same class.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.groups import CHANNEL, HEAD, LAYER, Group, kept_layers
from asrprune.weight_pruning.masks.prunable import VECTOR, Layer, parameter_of


@contextmanager
def cut(module: nn.Module, groups: Sequence[Group], units: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with the kept units alone inside of ``with``; backward may run later.

    Gradients of a parameter have its full shape, with zeros for units that are not kept. Parameters
    of layers that are not kept get no gradients. All names of a tied parameter are cut.

    Args:
        module: the module.
        groups: groups of channels, layers or heads of the module.
        units: the kept units (units,) bool of each group, by its name.

    Raises:
        UserError: a group of layers keeps no layer.
    """
    matrices = [group for group in groups if group.unit != LAYER]
    with ExitStack() as stacks:
        for group in groups:
            if group.unit == LAYER:
                stacks.enter_context(_without_layers(module, group, units[group.name]))
        with _in_matrices(module, matrices, units):
            yield


@contextmanager
def _without_layers(module: nn.Module, group: Group, units: Tensor) -> Iterator[None]:
    stack = cast(nn.ModuleList, module.get_submodule(group.name))
    kept = kept_layers(group, units, len(stack))
    if not kept:
        raise UserError(f"{group.name} would keep no layer at all: ask for a lower sparsity")
    fewer = nn.ModuleList(stack[position] for position in kept)
    places = [
        (part, key)
        for part in module.modules()
        for key, child in part._modules.items()
        if child is stack
    ]
    try:
        for part, key in places:
            part._modules[key] = fewer
        yield
    finally:
        for part, key in places:
            part._modules[key] = stack


@contextmanager
def _in_matrices(
    module: nn.Module, groups: Sequence[Group], units: Mapping[str, Tensor]
) -> Iterator[None]:
    parameters = {
        layer.name: parameter_of(module, layer.name) for group in groups for layer in group.layers
    }
    values = cut_weights(groups, parameters, units)
    by_id = {id(parameters[name]): value for name, value in values.items()}
    places = [
        (part, key, parameter)
        for part in module.modules()
        for key, parameter in part._parameters.items()
        if id(parameter) in by_id
    ]
    try:
        for part, key, parameter in places:
            # plain tensors, which torch's types do not allow here and its modules do
            part._parameters[key] = by_id[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for part, key, parameter in places:
            part._parameters[key] = parameter


def cut_state(
    state: Mapping[str, Any], groups: Sequence[Group], units: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return a state dict with the kept units alone, in the order of ``state``.

    Kept layers have new numbers in their names, from 0.

    Args:
        state: state dict of the module that has the groups.
        groups: groups of channels, layers or heads.
        units: the kept units (units,) bool of each group, by its name.

    Raises:
        UserError: a parameter is missing; or a group keeps no unit.
    """
    layers = [layer for group in groups for layer in group.layers]
    if missing := [layer.name for layer in layers if layer.name not in state]:
        raise UserError(f"the masks are of another model: the weights given have no {missing[0]}")
    if empty := [group.name for group in groups if not units[group.name].any()]:
        unit = next(group.unit for group in groups if group.name == empty[0])
        raise UserError(f"{empty[0]} would keep no {unit} at all: ask for a lower sparsity")
    matrices = [group for group in groups if group.unit != LAYER]
    with torch.no_grad():
        values = cut_weights(matrices, {layer.name: state[layer.name] for layer in layers}, units)
    # contiguous copies: a view would keep the whole tensor's memory, in files too
    smaller = {
        name: values[name].clone() if name in values else value for name, value in state.items()
    }
    for group in groups:
        if group.unit == LAYER:
            smaller = _renumbered(smaller, group, units[group.name])
    return smaller


def _renumbered(state: Mapping[str, Any], group: Group, units: Tensor) -> dict[str, Any]:
    """Return a state without the dropped layers, and with new numbers for the kept layers."""
    start = f"{group.name}."
    numbers = (name[len(start) :].split(".")[0] for name in state if name.startswith(start))
    kept = kept_layers(group, units, 1 + max(map(int, numbers)))
    new = {str(position): number for number, position in enumerate(kept)}
    found = {}
    for name, value in state.items():
        if not name.startswith(start):
            found[name] = value
            continue
        number, rest = name[len(start) :].split(".", 1)
        if number in new:
            found[f"{start}{new[number]}.{rest}"] = value
    return found


def cut_weights(
    groups: Sequence[Group], weights: Mapping[str, Tensor], units: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the kept channels or heads of each parameter, for groups that drop any.

    The result can be differentiated.
    """
    values = {}
    for group in groups:
        kept = units[group.name].nonzero().flatten()  # once: it waits for a GPU
        if len(kept) == group.units:
            continue
        for layer in group.layers:
            weight, rows = weights[layer.name], has_rows(layer)
            width = layer.block.rows if rows else layer.block.columns
            indices = kept.to(weight.device)
            if layer.times > 1:
                starts = torch.arange(layer.times, device=weight.device) * group.units
                indices = (starts[:, None] + indices).flatten()
            if width > 1:
                inside = torch.arange(width, device=weight.device)
                indices = (indices[:, None] * width + inside).flatten()
            values[layer.name] = weight.index_select(0 if rows else 1, indices)
    return values


def outlets(group: Group) -> tuple[Layer, ...]:
    """Return the parameters through which a group's units act on the rest of the network.

    With zeros in these parameters a unit has no effect, whatever its other weights are. Of channels
    and heads these are the matrices with columns; of blocks and layers, all parameters.
    """
    if group.unit not in (CHANNEL, HEAD):
        return group.layers
    return tuple(layer for layer in group.layers if not has_rows(layer))


def has_rows(layer: Layer) -> bool:
    """Return whether the layer's units are rows, outputs; else they are columns."""
    if layer.kind == VECTOR:
        return True
    # in a matrix of one column, the column can be the only channel
    one_column = layer.columns == 1 and layer.block.rows == layer.rows
    return layer.block.columns == layer.columns and not one_column
