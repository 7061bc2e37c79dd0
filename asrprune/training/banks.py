"""Makes the mask bank of a model: what the options prune, by the names of the model."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.groups import CHANNEL, Group, find_channels, grouped
from asrprune.weight_pruning.options import FIRST_ORDER, WeightPruningOptions, parse_block
from asrprune.weight_pruning.prunable import find_layers


def groups_of(model: nn.Module, options: WeightPruningOptions) -> list[Group]:
    """Return what the options prune of a model.

    Raises:
        UserError: the options do not fit the model.
    """
    if options.unit == CHANNEL:
        return find_channels(
            model, chains_of(model), options.include, options.exclude, options.multiple
        )
    block = parse_block(options.block)
    return grouped(
        find_layers(
            model, block, options.include, options.exclude, options.recurrent, options.ragged
        )
    )


def chains_of(model: nn.Module) -> dict[str, tuple[list[str], list[str]]]:
    """Return the channels that the encoder of a model names, with the names of the model."""
    find = getattr(getattr(model, "encoder", None), "channels", None)
    return {
        f"encoder.{one.name}": (
            [f"encoder.{name}" for name in one.rows],
            [f"encoder.{name}" for name in one.columns],
        )
        for one in (find() if find else [])
    }


def widths(model: nn.Module, units: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the options of an encoder's factory that name the widths of a sub-network.

    Args:
        model: the dense network.
        units: the kept units (units,) bool of each group of channels, by its name.
    """
    found: dict[str, list[int]] = {}
    for channels in model.encoder.channels():
        kept = units.get(f"encoder.{channels.name}")
        whole = model.encoder.get_parameter(channels.rows[0]).shape[0]
        found.setdefault(channels.option, []).append(whole if kept is None else int(kept.sum()))
    return found


def make_bank(
    model: nn.Module, options: WeightPruningOptions, masks: dict[str, Any] | None = None
) -> MaskBank:
    """The masks of a model: those that it was trained with, or by its weights.

    Args:
        masks: a `Masking`'s state; None: it was trained without.

    Raises:
        UserError: options that do not fit to the model; the masks of another one.
    """
    # without gradients there is no first-order score: so trainings begin, and files are opened
    criterion = "mean_square" if options.criterion == FIRST_ORDER else options.criterion
    bank = MaskBank(model, groups_of(model, options), criterion, options.scope)
    if masks:
        bank.load_state_dict(masks["bank"])
    return bank
