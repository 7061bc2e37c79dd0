"""Hold masks over a module's prunable weights, apart from the module.

The bank has one level (a byte) for each unit of a group (`asrprune.weight_pruning.masks.groups`).
At this level the unit drops. Levels give nested masks of all sparsities. The bank also has named
masks (a bit for each unit), such as one for each language.

Only :meth:`MaskBank.refresh` ranks weights. Between two refreshes the masks stay the same, however
the weights move. The bank never changes the module's parameters, their names or their values. Masks
act inside :meth:`MaskBank.apply` and :meth:`MaskBank.cut` only, or on copies.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError, nearest
from asrprune.weight_pruning.masks.bank_state import check_state, joined, parted
from asrprune.weight_pruning.masks.bits import pack_bits, packed_size, unpack_bits
from asrprune.weight_pruning.masks.blocks import (
    Block,
    check_finite,
    comparable,
    drop_levels,
    expand,
    kept,
)
from asrprune.weight_pruning.masks.cutting import cut, outlets
from asrprune.weight_pruning.masks.groups import Group, grouped, unit_scores
from asrprune.weight_pruning.masks.masked_values import masked_copies, masked_values, zero_gradients
from asrprune.weight_pruning.masks.prunable import Layer, parameter_of, refuse_sharded
from asrprune.weight_pruning.masks.sizes import elements
from asrprune.weight_pruning.masks.swap import SWAPS, swapped

Choice = float | str | Mapping[str, float | Tensor]
"""A sub-network: one sparsity for all groups; the name of a mask; or, for each group's name, a
sparsity or the kept units (units,) bool. Sparsities are from 0 to 1, rounded to levels of 0.004."""


@dataclass(frozen=True)
class Cached:
    """Masked weights, made once, to which :meth:`MaskBank.apply` can switch."""

    values: dict[str, Tensor]
    blocks: dict[str, Tensor]  # the kept blocks of each layer
    made_of: dict[str, tuple[int, int]]  # the weights' addresses and versions


class MaskBank:
    """The masks of some layers of a module.

    A layer outside of all groups is a group of one layer, with the layer's name. Masks are given by
    the group's name, on the device of the group's first parameter.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[Layer | Group],
        criterion: str = "mean_square",
        scope: str = "layer",
    ) -> None:
        """Rank the units of the groups by their present weights.

        Args:
            module: the module that holds the layers.
            layers: from `asrprune.weight_pruning.masks.prunable.find_layers`; or from
                `find_channels`, `find_stack` or `find_heads` of
                `asrprune.weight_pruning.masks.groups`.
            criterion: how blocks are scored, see :mod:`asrprune.weight_pruning.masks.blocks`.
            scope: "layer": units compete within their group; "global": units of all groups compete,
                see `asrprune.weight_pruning.masks.blocks.comparable`.

        Raises:
            UserError: a layer is given twice, or has NaN or infinite weights, see :meth:`refresh`.
        """
        self.groups = grouped(layers)
        self.layers = [layer for group in self.groups for layer in group.layers]
        self.criterion = criterion
        self.scope = scope
        self._module = module
        self._levels: dict[str, Tensor] = {}  # (units,) uint8
        self._named: dict[str, dict[str, Tensor]] = {}  # packed bits
        self._applied = False
        self._swaps = 0
        self.refresh()

    def refresh(
        self,
        among: Choice | None = None,
        factors: Mapping[str, Tensor] | None = None,
        scores: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Rank the units by the present weights, masked weights included. Keep named masks.

        Args:
            among: a choice. Units that it does not keep rank below all others, and so drop first.
            factors: for each group's name, factors of the scores, (units,) float32, at least 0.
            scores: for each group's name, (units,) float32, at least 0. None: the criterion's
                scores.

        Raises:
            UserError: a layer is sharded, or has NaN or infinite weights or scores. The levels do
                not change then.
        """
        self._refuse_inside("refresh")
        for name, parameter in self.parameters().items():
            refuse_sharded(name, parameter)
        first = self.blocks(among) if among is not None else None
        found, parameters = [], self.parameters()
        for group in self.groups:
            found.append(
                scores[group.name].clone()
                if scores
                else unit_scores(group, parameters, self.criterion)
            )
            check_finite(group.name, found[-1])
            if factors:
                found[-1] *= factors[group.name]
            if self.scope == "global":
                found[-1] = comparable(found[-1])
            if first:
                found[-1].masked_fill_(~first[group.name], -1)  # no score is below 0
        levels = drop_levels(
            found, self.block.group, self.scope, [group.multiple for group in self.groups]
        )
        self._levels = {group.name: level for group, level in zip(self.groups, levels, strict=True)}

    def levels(self) -> dict[str, Tensor]:
        """Return each unit's level (units,) uint8 from 1 to 250: higher levels are kept longer."""
        return {name: level.clone() for name, level in self._levels.items()}

    def blocks(self, choice: Choice) -> dict[str, Tensor]:
        """Return the kept units (units,) bool of each group.

        Raises:
            UserError: the choice has an unknown name, lacks a group, or has a value that is no mask
                of the group and no sparsity from 0 to 1.
        """
        if isinstance(choice, str):
            named = self._get(choice)
            return {
                group.name: unpack_bits(named[group.name].to(device), group.units)
                for group, device in self._places()
            }
        if isinstance(choice, Mapping):
            names = [group.name for group in self.groups]
            for name in choice:
                if name not in names:
                    raise UserError(f"no pruned layer is named {name!r}{nearest(name, names)}")
            missing = [name for name in names if name not in choice]
            if missing:
                raise UserError(
                    f"the choice says nothing of {len(missing)} layers, such as {missing[0]}; "
                    "give each layer its sparsity (0 keeps all)"
                )
            return {group.name: self._kept(group, choice[group.name]) for group in self.groups}
        return {group.name: self._kept(group, choice) for group in self.groups}

    def blocks_of_layers(self, choice: Choice) -> dict[str, Tensor]:
        """Return the kept blocks (blocks,) bool of each layer, by name; raise as :meth:`blocks`."""
        units = self.blocks(choice)
        return {
            layer.name: layer.of(units[group.name])
            for group in self.groups
            for layer in group.layers
        }

    def gates(self) -> dict[str, str]:
        """Return the name of each layer's group, by the layer's name."""
        return {layer.name: group.name for group in self.groups for layer in group.layers}

    @property
    def block(self) -> Block:
        """The block shape of the first layer; in block pruning all layers have this shape."""
        return self.layers[0].block

    @property
    def unit(self) -> str:
        """The pruned unit: channel, layer or head, or the shape of a block, such as ``8x1``."""
        return self.groups[0].unit if self.cuts else str(self.block)

    @property
    def cuts(self) -> bool:
        """Whether a sub-network is a smaller dense network: its units can be cut out."""
        return self.groups[0].unit != "block"

    def masks(self, choice: Choice) -> dict[str, Tensor]:
        """Return each layer's mask, bool of the parameter's shape: True for kept weights."""
        blocks, parameters = self.blocks_of_layers(choice), self.parameters()
        return {
            layer.name: expand(blocks[layer.name], layer.shape, layer.block).view_as(
                parameters[layer.name]
            )
            for layer in self.layers
        }

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return each layer's parameter, looked up anew, as loading or moving may replace it."""
        return {layer.name: parameter_of(self._module, layer.name) for layer in self.layers}

    def tied(self) -> dict[str, str]:
        """Return the module's other names of the layers' parameters, each with the layer's name."""
        names = {id(parameter): name for name, parameter in self.parameters().items()}
        return {
            name: names[id(parameter)]
            for name, parameter in self._module.named_parameters(remove_duplicate=False)
            if id(parameter) in names and name != names[id(parameter)]
        }

    # named masks

    @property
    def names(self) -> list[str]:
        """The names of masks, in the order in which they were first named."""
        return list(self._named)

    def name(self, name: str, choice: Choice) -> None:
        """Store the units that ``choice`` keeps now as a mask of this name, new or not."""
        self._named[name] = {group: pack_bits(kept) for group, kept in self.blocks(choice).items()}

    def delete(self, name: str) -> None:
        """Delete a named mask.

        Raises:
            UserError: no mask has this name.
        """
        self._get(name)
        del self._named[name]

    # sets of masks

    def union(self, first: Choice, *others: Choice) -> dict[str, Tensor]:
        """Return the units (units,) bool of each group that any of the choices keeps: a choice too.

        The union gates an optimiser's step, if the choices are all that gave gradients to the step.
        """
        return reduce(_either, map(self.blocks, others), self.blocks(first))

    def overlap(self, a: Choice, b: Choice) -> float:
        """Return the weights that both keep over those that either keeps (Jaccard); 1 if none."""
        one, other = self.blocks(a), self.blocks(b)
        either = self._elements(_either(one, other))
        both = self._elements({name: kept & other[name] for name, kept in one.items()})
        return both / either if either else 1.0

    def density(self, choice: Choice) -> float:
        """Return the share of the layers' weights that a choice keeps."""
        total = sum(layer.size for layer in self.layers)
        return self._elements(self.blocks(choice)) / total

    def kept_parameters(self, choice: Choice) -> int:
        """Return how many of the module's parameters a choice keeps or are never pruned."""
        total = sum(parameter.numel() for parameter in self._module.parameters())
        pruned = sum(layer.size for layer in self.layers)
        return total - pruned + self._elements(self.blocks(choice))

    # masked weights

    @contextmanager
    def apply(self, choice: Choice | Cached, all_gradients: bool = False) -> Iterator[None]:
        """Compute with masked weights inside of ``with``: run forward *and* backward there.

        Inside, the parameters hold masked copies. Then they hold their own tensors again, even
        after an exception. Masked weights get no gradients, so gradients of several sub-networks
        add up. The cost is a copy of the layers.

        Args:
            choice: the sub-network, or its weights from :meth:`cached`.
            all_gradients: masked weights get the gradients that they have as zeros. Gate these
                gradients in the optimiser's step. Of channels and heads, only the columns are
                masked then: a column has a gradient only if the row before it is not zero.

        Raises:
            UserError: a mask is applied already; the weights changed after :meth:`cached`; or, at
                the end, a parameter was changed inside, as an optimiser does. The change is lost.
        """
        self._refuse_inside("apply another mask")
        parameters = self.parameters()  # once: looking up is most of a switch's cost
        if isinstance(choice, Cached):
            if choice.made_of != self._whereabouts(parameters):
                raise UserError("the weights have changed since this sub-network was cached")
            blocks, values = choice.blocks, choice.values
        else:
            blocks, layers = self.blocks_of_layers(choice), self.layers
            if all_gradients:
                layers = [layer for group in self.groups for layer in outlets(group)]
            values = {name: parameter.data for name, parameter in parameters.items()}
            values |= masked_values(layers, blocks, parameters)
        self._applied = True
        self._swaps += SWAPS
        hooks = [] if all_gradients else zero_gradients(self.layers, blocks, parameters)
        try:
            with swapped(parameters, values):
                yield
        finally:
            self._applied = False
            for hook in hooks:
                hook.remove()

    @contextmanager
    def cut(self, choice: Choice) -> Iterator[None]:
        """Compute with the kept units alone inside of ``with``: a smaller network.

        Results equal those of :meth:`apply`, at lower cost. Gradients have the parameters' full
        shape, with zeros for units that are not kept. Parameters of layers that are not kept have
        no gradients.

        Raises:
            UserError: a mask is applied already; or weights are pruned in blocks.
        """
        self._refuse_inside("cut units out")
        if not self.cuts:
            raise UserError(
                f"blocks of {self.unit} cannot be cut out: set weight_pruning.unit=channel, layer "
                "or head"
            )
        self._applied = True
        try:
            with cut(self._module, self.groups, self.blocks(choice)):
                yield
        finally:
            self._applied = False

    def sub_network(
        self, choice: Choice, all_gradients: bool = False
    ) -> AbstractContextManager[None]:
        """Return :meth:`apply` for blocks or with ``all_gradients``, else :meth:`cut`."""
        cuts = self.cuts and not all_gradients
        return self.cut(choice) if cuts else self.apply(choice, all_gradients)

    def cached(self, choice: Choice) -> Cached:
        """Return a choice's masked weights, to which :meth:`apply` can switch any number of times.

        They cost a copy of the layers while held, and are valid until the weights change.
        """
        self._refuse_inside("cache a sub-network")
        blocks, parameters = self.blocks_of_layers(choice), self.parameters()
        values = masked_values(self.layers, blocks, parameters)
        return Cached(values, blocks, self._whereabouts(parameters))

    def masked(self, choice: Choice) -> dict[str, Tensor]:
        """Return weights for ``torch.func.functional_call``; only kept ones get gradients."""
        self._refuse_inside("mask the weights again")
        return masked_copies(self.layers, self.blocks_of_layers(choice), self.parameters())

    # state

    def state_dict(self) -> dict[str, Any]:
        """Return levels, named masks and a fingerprint, for ``torch.load(weights_only=True)``.

        All tensors are on the CPU and join the groups in order. ``levels`` (units,) uint8 has a
        byte a unit. ``named`` has (bytes,) uint8 by name: a bit a unit, and each group begins with
        a new byte. The fingerprint is what the masks belong to: unit, criterion, scope and layers.
        """
        return {
            **self._fingerprint(),
            "levels": joined(self.groups, self._levels),
            "named": {name: joined(self.groups, masks) for name, masks in self._named.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load levels and named masks, in place of all that were there.

        Masks hold no weights, so those of another model with equal layers load as they are.

        Raises:
            UserError: the state holds no masks, is damaged, or has other layers, blocks, criterion
                or scope. The bank does not change then.
        """
        counts = [group.units for group in self.groups]
        check_state(state, self._fingerprint(), counts)
        sizes = [packed_size(count) for count in counts]
        self._levels = parted(self._places(), state["levels"], counts)
        self._named = {
            name: parted(self._places(), bits, sizes) for name, bits in state["named"].items()
        }

    def digest(self) -> str:
        """Return a hash of layers, levels and named masks in order of name: equal on all ranks."""
        code = hashlib.blake2b(repr(self._fingerprint()).encode(), digest_size=16)
        code.update(joined(self.groups, self._levels).numpy().data)
        for name in sorted(self._named):
            code.update(f"{name!r}".encode())
            code.update(joined(self.groups, self._named[name]).numpy().data)
        return code.hexdigest()

    def _fingerprint(self) -> dict[str, Any]:
        return {
            "unit": self.unit,
            "criterion": self.criterion,
            "scope": self.scope,
            "layers": [(layer.name, layer.rows, layer.columns) for layer in self.layers],
        }

    def _places(self) -> Iterator[tuple[Group, torch.device]]:
        """Yield each group, and the device of its first parameter."""
        for group in self.groups:
            yield group, parameter_of(self._module, group.layers[0].name).device

    def _whereabouts(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, tuple[int, int]]:
        """Return each parameter's address, and its version without this bank's own swaps."""
        return {
            name: (parameter.data_ptr(), parameter._version - self._swaps)
            for name, parameter in parameters.items()
        }

    def _refuse_inside(self, what: str) -> None:
        if self._applied:
            raise UserError(f"cannot {what} while a mask is applied: the weights are masked ones")

    def _get(self, name: str) -> dict[str, Tensor]:
        if name not in self._named:
            known = f"known: {', '.join(self._named)}" if self._named else "there are none yet"
            raise UserError(f"no mask is named {name!r}{nearest(name, self._named)}; {known}")
        return self._named[name]

    def _kept(self, group: Group, choice: float | Tensor) -> Tensor:
        device = parameter_of(self._module, group.layers[0].name).device
        if isinstance(choice, Tensor):
            if choice.dtype != torch.bool or choice.shape != (group.units,):
                raise UserError(
                    f"the kept blocks of {group.name} are {choice.dtype} of shape "
                    f"{tuple(choice.shape)}; they have to be bool of ({group.units},)"
                )
            return choice.to(device)
        if isinstance(choice, bool) or not 0 <= choice <= 1:  # NaN fails too
            raise UserError(f"{choice!r} is no sparsity of {group.name}: give one from 0 to 1")
        level = self._levels[group.name] = self._levels[group.name].to(device)
        return kept(level, choice)

    def _elements(self, units: Mapping[str, Tensor]) -> int:
        return sum(
            elements(layer.of(units[group.name]), layer.shape, layer.block)
            for group in self.groups
            for layer in group.layers
        )


def _either(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: kept | b[name] for name, kept in a.items()}
