"""Group layers that are pruned together, and so have one sparsity.

A group has *units*: what a mask keeps or drops as one. In block pruning a group has one parameter,
and its units are the blocks of this parameter. In channel pruning a group has several parameters,
and its units are the channels between two matrices. Channel ``j`` of a feed-forward module is row
``j`` and bias ``j`` of the first matrix, and column ``j`` of the second. In layer pruning there is
one group, and its units are the layers of an encoder: each parameter of a layer is one block of the
layer's unit. In head pruning there is one group too. Unit ``j`` is head ``j`` of the attention of
all layers, so all layers have the same number of heads. Without some channels, layers or heads, the
model is a smaller dense network.

The class `Layer` stands for one parameter, whichever unit it belongs to.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError, nearest
from asrprune.weight_pruning.masks.blocks import block_scores
from asrprune.weight_pruning.masks.prunable import (
    OTHER,
    VECTOR,
    Layer,
    Verdict,
    as_matrix,
    check_patterns,
    listed,
    matches,
    verdicts_of,
)
from asrprune.weight_pruning.options import Block

CHANNEL, LAYER, HEAD = "channel", "layer", "head"

Chains = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Name of a group -> the parameters in which a channel is a row, and the parameters in which a
channel is a column. A parameter of one dimension has rows."""


@dataclass(frozen=True)
class Group:
    """Parameters with one sparsity: unit ``j`` has block ``j - first`` of each of its layers.

    Where the units repeat in a layer, as in queries, keys and values, unit ``j`` has one block of
    each repetition.
    """

    name: str  # of a group of layers: the path of their `nn.ModuleList`
    layers: tuple[Layer, ...]
    multiple: int = 0  # kept units are a multiple of this number, at least one; 0: any number
    unit: str = "block"  # block, channel, layer or head
    positions: tuple[int, ...] = ()  # unit=layer: of each unit in the `nn.ModuleList`

    @property
    def units(self) -> int:
        """The number of units."""
        return max(layer.end for layer in self.layers)

    @property
    def size(self) -> int:
        """The number of weights."""
        return sum(layer.size for layer in self.layers)


def grouped(layers: Iterable[Layer | Group]) -> list[Group]:
    """Return groups as they are, and each layer as a group of one layer, with the layer's name.

    Raises:
        UserError: a layer is in two groups, or two groups have one name.
    """
    groups = [
        Group(layer.name, (layer,)) if isinstance(layer, Layer) else layer for layer in layers
    ]
    for names in (
        [group.name for group in groups],
        [layer.name for group in groups for layer in group.layers],
    ):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"weight_pruning: {name} is in two groups; leave it out of one")
    return groups


def find_channels(
    module: nn.Module,
    chains: Chains,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    multiple: int = 1,
) -> list[Group]:
    """Return the groups of channels of a module, in the order of ``chains``.

    Args:
        module: the module.
        chains: the parameters that channels connect, by the names of `named_parameters`.
        include: patterns of parameters' names, such as ``encoder.*``. A group is taken if all its
            parameters match. Empty: all groups.
        exclude: patterns of names. A group is left out if one of its parameters matches.
        multiple: see `Group`.

    Raises:
        UserError: a pattern matches nothing; no group is left; a parameter cannot be pruned; or the
            layers of a group have different numbers of channels.
    """
    if not chains:
        raise UserError(
            f"weight_pruning.unit={CHANNEL}: the encoder names no channels that can be cut out. "
            "Use weight_pruning.unit=block"
        )
    verdicts = _checked_verdicts(module, include, exclude)
    groups = []
    for name, (rows, columns) in chains.items():
        parts = [*rows, *columns]
        taken = not include or all(matches(part, include) for part in parts)
        if taken and not any(matches(part, exclude) for part in parts):
            layers = [
                *(_layer(module, verdicts, part, along_rows=True) for part in rows),
                *(_layer(module, verdicts, part, along_rows=False) for part in columns),
            ]
            if len({layer.blocks for layer in layers}) > 1:
                sizes = ", ".join(f"{layer.name} {layer.blocks}" for layer in layers)
                raise UserError(f"weight_pruning: the channels of {name} do not match: {sizes}")
            groups.append(Group(name, tuple(layers), multiple, CHANNEL))
    if not groups:
        raise UserError(
            f"weight_pruning.unit={CHANNEL}: no channels are left of {listed(list(chains))}. "
            "Loosen weight_pruning.include and exclude"
        )
    return groups


def find_stack(
    module: nn.Module,
    path: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Group:
    """Return the group whose units are the layers of a stack.

    Args:
        module: the module.
        path: of the `nn.ModuleList` in the module. Each of its layers adds to its input. A layer
            whose parameters are all zero must return its input.
        include: patterns of parameters' names. A layer is a unit if all its parameters match.
            Empty: all layers.
        exclude: patterns of names. A layer of which a parameter matches is never dropped.

    Raises:
        UserError: a pattern matches nothing; no layer is left; or a layer shares a parameter.
    """
    verdicts = _checked_verdicts(module, include, exclude)
    first_names = {id(parameter): name for name, parameter in module.named_parameters()}
    positions: list[int] = []
    layers: list[Layer] = []
    for position, part in enumerate(cast(nn.ModuleList, module.get_submodule(path))):
        known = [first_names[id(parameter)] for parameter in part.parameters()]
        if include and not all(matches(name, include) for name in known):
            continue
        if any(matches(name, exclude) for name in known):
            continue
        names = [f"{path}.{position}.{name}" for name, _ in part.named_parameters()]
        _refuse_shared(module, [f"{path}.{position}."], LAYER)
        for name in names:
            rows, columns = as_matrix(module.get_parameter(name)).shape
            vector = module.get_parameter(name).ndim == 1
            kind = verdicts[name].kind or (VECTOR if vector else OTHER)
            layers.append(Layer(name, rows, columns, kind, Block(rows, columns), len(positions)))
        positions.append(position)
    if not positions:
        raise UserError(
            f"weight_pruning.unit={LAYER}: no layer of {path} may be dropped. Loosen "
            "weight_pruning.include and exclude"
        )
    return Group(path, tuple(layers), 1, LAYER, tuple(positions))


def find_heads(
    module: nn.Module,
    name: str,
    rows: Mapping[str, int],
    columns: Sequence[str],
    size: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Group:
    """Return the group whose units are heads of attention: unit ``j`` is head ``j`` everywhere.

    Args:
        module: the module.
        name: of the group.
        rows: parameter -> how often its rows hold all heads, such as 3 for queries, keys and
            values.
        columns: parameters whose columns hold all heads once.
        size: rows, or columns, of a head.
        include: patterns of parameters' names. All parameters have to match. Empty: all names.
        exclude: patterns of names. No parameter may match.

    Raises:
        UserError: a pattern matches nothing, or leaves some of the heads out; a parameter is
            shared; or layers have different numbers of heads.
    """
    verdicts = _checked_verdicts(module, include, exclude)
    layers = []
    _refuse_shared(module, [*rows, *columns], HEAD)
    for parameter in (*rows, *columns):
        if (include and not matches(parameter, include)) or matches(parameter, exclude):
            raise UserError(
                f"weight_pruning.unit={HEAD}: weight_pruning.include and exclude leave {parameter} "
                "out, but all layers have the same number of heads. Loosen include and exclude"
            )
        height, width = as_matrix(module.get_parameter(parameter)).shape
        block = Block(size, width) if parameter in rows else Block(height, size)
        kind = verdicts[parameter].kind or VECTOR
        layers.append(Layer(parameter, height, width, kind, block, 0, rows.get(parameter, 1)))
    numbers = sorted({layer.end for layer in layers})
    if len(numbers) > 1:
        raise UserError(
            f"weight_pruning.unit={HEAD}: all layers need the same number of heads, and there are "
            f"layers of {numbers[0]} and of {numbers[-1]}"
        )
    return Group(name, tuple(layers), 1, HEAD)


def _checked_verdicts(
    module: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, Verdict]:
    """Return the verdict on each parameter, after a check of the patterns."""
    verdicts = verdicts_of(module)
    check_patterns("include", include, verdicts)
    check_patterns("exclude", exclude, verdicts)
    return verdicts


def _refuse_shared(module: nn.Module, names: Sequence[str], unit: str) -> None:
    """Refuse parameters that have another name in the module too.

    Args:
        module: the module.
        names: names of parameters, or how the names of a layer's parameters begin.
        unit: the pruned unit, for the message.

    Raises:
        UserError: another part of the module uses a parameter.
    """
    all_names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        all_names.setdefault(id(parameter), []).append(name)
    for found in all_names.values():
        own = [name for name in found if name.startswith(tuple(names))]
        # a layer may share parameters within itself
        others = [name for name in found if name not in own] if unit == LAYER else found[1:]
        if own and others:
            way = "Leave it out by weight_pruning.exclude, or use" if unit == LAYER else "Use"
            raise UserError(
                f"weight_pruning.unit={unit}: {own[0]} is {others[0]} too, so it cannot be dropped "
                f"alone. {way} weight_pruning.unit=block"
            )


def kept_layers(group: Group, units: Tensor, count: int) -> list[int]:
    """Return the positions of the layers that a sub-network keeps, in order.

    Args:
        group: a group of layers.
        units: the kept units (units,) bool.
        count: the number of layers in the `nn.ModuleList`.
    """
    pairs = zip(group.positions, units.tolist(), strict=True)
    dropped = {position for position, kept in pairs if not kept}
    return [position for position in range(count) if position not in dropped]


def unit_scores(
    group: Group, tensors: Mapping[str, Tensor], criterion: str = "mean_square"
) -> Tensor:
    """Return the score of each unit: the mean over all its weights, in all its parameters.

    Args:
        group: the group.
        tensors: for each layer's name, a tensor of the parameter's shape.
        criterion: see `asrprune.weight_pruning.masks.blocks.block_scores`.

    Returns:
        (units,) float32, at least 0.
    """
    scores = [
        block_scores(as_matrix(tensors[layer.name].detach()), layer.block, criterion)
        for layer in group.layers
    ]
    if len(scores) == 1:
        return scores[0]
    total = scores[0].new_zeros(group.units)
    weights = torch.zeros(group.units, dtype=torch.float64)  # of each unit
    for score, layer in zip(scores, group.layers, strict=True):
        each = layer.size / layer.blocks
        layer.add_to(total, score * each)
        layer.add_to(weights, torch.full((layer.blocks,), each, dtype=torch.float64))
    return total / weights.to(total)


def _layer(
    module: nn.Module, verdicts: Mapping[str, Verdict], name: str, along_rows: bool
) -> Layer:
    """Return a parameter as a layer with one channel in each row, or in each column."""
    if name not in verdicts:
        raise UserError(
            f"weight_pruning: {type(module).__name__} has no parameter {name}"
            f"{nearest(name, verdicts)}"
        )
    parameter, verdict = module.get_parameter(name), verdicts[name]
    kind = verdict.kind or (VECTOR if parameter.ndim == 1 else None)
    if kind is None:
        raise UserError(f"weight_pruning: {name} cannot be pruned in channels: {verdict.reason}")
    rows, columns = as_matrix(parameter).shape
    block = Block(1, columns) if along_rows else Block(rows, 1)
    return Layer(name, rows, columns, kind, block)
