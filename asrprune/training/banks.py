"""Make the mask bank of a model from the options of weight pruning."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.groups import (
    CHANNEL,
    HEAD,
    LAYER,
    Group,
    find_channels,
    find_heads,
    find_stack,
    grouped,
    kept_layers,
)
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import FIRST_ORDER, WeightPruningOptions, parse_block


def groups_of(model: nn.Module, options: WeightPruningOptions) -> list[Group]:
    """Return the groups of a model that the options prune.

    Raises:
        UserError: the options do not fit the model.
    """
    if options.unit == CHANNEL:
        return find_channels(
            model, chains_of(model), options.include, options.exclude, options.multiple
        )
    patterns = options.include, options.exclude
    if options.unit == LAYER:
        stack = _named_by_encoder(model, "stack", LAYER)
        return [find_stack(model, f"encoder.{stack.name}", *patterns)]
    if options.unit == HEAD:
        heads = _named_by_encoder(model, "heads", HEAD)
        rows = {f"encoder.{name}": times for name, times in heads.rows.items()}
        columns = [f"encoder.{name}" for name in heads.columns]
        return [find_heads(model, "encoder.heads", rows, columns, heads.size, *patterns)]
    block = parse_block(options.block)
    return grouped(
        find_layers(
            model, block, options.include, options.exclude, options.recurrent, options.ragged
        )
    )


def _named_by_encoder(model: nn.Module, method: str, unit: str) -> Any:
    find = getattr(getattr(model, "encoder", None), method, None)
    if find is None:
        raise UserError(
            f"weight_pruning.unit={unit}: the encoder names no {unit}s that can be left out. Use "
            "weight_pruning.unit=block"
        )
    return find()


def chains_of(model: nn.Module) -> dict[str, tuple[list[str], list[str]]]:
    """Return the channels that a model's encoder names, with the parameters' names in the model."""
    find = getattr(getattr(model, "encoder", None), "channels", None)
    return {
        f"encoder.{one.name}": (
            [f"encoder.{name}" for name in one.rows],
            [f"encoder.{name}" for name in one.columns],
        )
        for one in (find() if find else [])
    }


def sizes_of(
    model: nn.Module, groups: Sequence[Group], units: Mapping[str, Tensor]
) -> dict[str, int | list[int]]:
    """Return the sizes of a sub-network as options of the encoder's factory.

    Args:
        model: the dense network.
        groups: groups of channels, layers or heads.
        units: the kept units (units,) bool of each group, by the group's name.

    Returns:
        Name of an option -> the number of layers or heads, or the widths of the modules that the
        option is for.
    """
    found: dict[str, int | list[int]] = {}
    dropped: list[str] = []  # how the names of dropped parameters begin
    for group in groups:
        if group.unit == LAYER:
            count = len(model.get_submodule(group.name))
            kept = kept_layers(group, units[group.name], count)
            found[model.encoder.stack().option] = len(kept)
            dropped += [f"{group.name}.{one}." for one in set(range(count)) - set(kept)]
        if group.unit == HEAD:
            heads = model.encoder.heads()
            found[heads.option] = int(units[group.name].sum())
            found[heads.size_option] = heads.size
    widths: dict[str, list[int]] = {}
    for channels in getattr(model.encoder, "channels", list)():
        if f"encoder.{channels.rows[0]}".startswith(tuple(dropped)):
            continue
        kept = units.get(f"encoder.{channels.name}")
        whole = model.encoder.get_parameter(channels.rows[0]).shape[0]
        widths.setdefault(channels.option, []).append(whole if kept is None else int(kept.sum()))
    return {**found, **widths}


def layer_patterns(
    model: nn.Module, groups: Sequence[Group], units: Mapping[str, Tensor]
) -> dict[str, list[str]]:
    """Return ``include`` and ``exclude`` of a sub-network, whose layers have new numbers.

    Args:
        model: the dense network.
        groups: the one group of layers.
        units: the kept units (units,) bool of the group, by its name.
    """
    [group] = groups
    count = len(model.get_submodule(group.name))
    exclude = [
        f"{group.name}.{number}.*"
        for number, position in enumerate(kept_layers(group, units[group.name], count))
        if position not in group.positions
    ]
    return {"include": [f"{group.name}.*"], "exclude": exclude}


def make_bank(
    model: nn.Module, options: WeightPruningOptions, masks: dict[str, Any] | None = None
) -> MaskBank:
    """Return the masks of a model: the masks of its training, or masks by its present weights.

    Args:
        model: the model.
        options: the options of weight pruning.
        masks: the state of a `Masking`; None: the model was trained without masks.

    Raises:
        UserError: the options do not fit the model; or the masks belong to another model.
    """
    # Without gradients there are no first-order scores. A training begins without gradients, and
    # an opened file has none.
    criterion = "mean_square" if options.criterion == FIRST_ORDER else options.criterion
    bank = MaskBank(model, groups_of(model, options), criterion, options.scope)
    if masks:
        bank.load_state_dict(masks["bank"])
    return bank
