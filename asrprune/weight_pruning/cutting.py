"""Cut channels out of a module, which then computes with smaller matrices.

`cut` does this for a while. Gradients land in the full parameters, so a step of a sub-network costs
less than a step of the dense network. `cut_state` does this for good: it returns the state of a
smaller module of the same class.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asrprune.errors import UserError
from asrprune.weight_pruning.groups import Group
from asrprune.weight_pruning.prunable import Layer


@contextmanager
def cut(module: nn.Module, groups: Sequence[Group], units: Mapping[str, Tensor]) -> Iterator[None]:
    """Compute with the kept channels alone inside of ``with``; backward may run later.

    Gradients of a parameter have its full shape, with zeros for channels that are not kept. All
    names of a tied parameter are cut.

    Args:
        module: the module.
        groups: groups of channels of the module.
        units: the kept units (units,) bool of each group, by its name.
    """
    parameters = {
        layer.name: module.get_parameter(layer.name) for group in groups for layer in group.layers
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
            part._parameters[key] = by_id[id(parameter)]
        yield
    finally:
        for part, key, parameter in places:
            part._parameters[key] = parameter


def cut_state(
    state: Mapping[str, Any], groups: Sequence[Group], units: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return a state dict with the kept channels alone, in the order of ``state``.

    Args:
        state: state dict of the module that has the groups.
        groups: groups of channels.
        units: the kept units (units,) bool of each group, by its name.

    Raises:
        UserError: a parameter is missing; or a group keeps no unit.
    """
    layers = [layer for group in groups for layer in group.layers]
    if missing := [layer.name for layer in layers if layer.name not in state]:
        raise UserError(f"the masks are of another model: the weights given have no {missing[0]}")
    if empty := [group.name for group in groups if not units[group.name].any()]:
        raise UserError(f"{empty[0]} would keep no channel at all: ask for a lower sparsity")
    with torch.no_grad():
        values = cut_weights(groups, {layer.name: state[layer.name] for layer in layers}, units)
    # contiguous copies: a view would keep the whole tensor's memory, in files too
    return {
        name: values[name].clone() if name in values else value for name, value in state.items()
    }


def cut_weights(
    groups: Sequence[Group], weights: Mapping[str, Tensor], units: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the kept channels of each layer, for groups that drop any channel.

    The result can be differentiated.
    """
    values = {}
    for group in groups:
        kept = units[group.name].nonzero().flatten()
        if len(kept) == group.units:
            continue
        for layer in group.layers:
            weight = weights[layer.name]
            axis = 0 if has_rows(layer) else 1
            values[layer.name] = weight.index_select(axis, kept.to(weight.device))
    return values


def has_rows(layer: Layer) -> bool:
    """Return whether a channel of the layer is a row, an output; else it is a column."""
    return layer.block.columns == layer.columns and layer.blocks == layer.rows
