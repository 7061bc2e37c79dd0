"""Group layers that are pruned together, and so have one sparsity.

A group has *units*: what a mask keeps or drops as one. Each layer of a group has as many blocks as
the group has units, and unit ``j`` is block ``j`` of every layer. In block pruning a group has one
layer, and its units are the layer's blocks. In channel pruning a group has several layers, and its
units are the channels between two matrices. Channel ``j`` of a feed-forward module is row ``j`` and
bias ``j`` of the first matrix, and column ``j`` of the second. Without some channels, the module is
a smaller dense network.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from asrprune.errors import UserError, nearest
from asrprune.weight_pruning.blocks import block_scores
from asrprune.weight_pruning.options import Block
from asrprune.weight_pruning.prunable import (
    VECTOR,
    Layer,
    Verdict,
    as_matrix,
    check_patterns,
    listed,
    matches,
    verdicts_of,
)

CHANNEL = "channel"

Chains = Mapping[str, tuple[Sequence[str], Sequence[str]]]
"""Name of a group -> the parameters in which a channel is a row, and the parameters in which a
channel is a column. A parameter of one dimension has rows."""


@dataclass(frozen=True)
class Group:
    """Layers with one sparsity: unit ``j`` of the group is block ``j`` of each layer."""

    name: str
    layers: tuple[Layer, ...]
    multiple: int = 1  # kept units are a multiple of this number, or all units

    @property
    def units(self) -> int:
        """The number of units."""
        return self.layers[0].blocks

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
    verdicts = verdicts_of(module)
    check_patterns("include", include, verdicts)
    check_patterns("exclude", exclude, verdicts)
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
            groups.append(Group(name, tuple(layers), multiple))
    if not groups:
        raise UserError(
            f"weight_pruning.unit={CHANNEL}: no channels are left of {listed(list(chains))}. "
            "Loosen weight_pruning.include and exclude"
        )
    return groups


def unit_scores(
    group: Group, tensors: Mapping[str, Tensor], criterion: str = "mean_square"
) -> Tensor:
    """Return the score of each unit: the mean over all its weights, in all layers of the group.

    Args:
        group: the group.
        tensors: for each layer's name, a tensor of the parameter's shape.
        criterion: see `asrprune.weight_pruning.blocks.block_scores`.

    Returns:
        (units,) float32, at least 0.
    """
    scores = [
        block_scores(as_matrix(tensors[layer.name].detach()), layer.block, criterion)
        for layer in group.layers
    ]
    if len(scores) == 1:
        return scores[0]
    total = scores[0] * group.layers[0].size
    for score, layer in zip(scores[1:], group.layers[1:], strict=True):
        total += score.to(total.device) * layer.size
    return total / group.size


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
