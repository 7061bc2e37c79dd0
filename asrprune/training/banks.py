"""Makes the mask bank of a model from the options of weight pruning."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.groups import CHANNEL, Group, find_channels, grouped
from asrprune.weight_pruning.options import FIRST_ORDER, WeightPruningOptions, parse_block
from asrprune.weight_pruning.prunable import find_layers


def groups_of(model: nn.Module, options: WeightPruningOptions) -> list[Group]:
    """Return the groups of a model that the options prune.

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
    """Return the channels that a model's encoder names, with the parameters' names in the model."""
    find = getattr(getattr(model, "encoder", None), "channels", None)
    return {
        f"encoder.{one.name}": (
            [f"encoder.{name}" for name in one.rows],
            [f"encoder.{name}" for name in one.columns],
        )
        for one in (find() if find else [])
    }


def widths(model: nn.Module, units: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the widths of a sub-network as options of the encoder's factory.

    Args:
        model: the dense network.
        units: the kept units (units,) bool of each group of channels, by the group's name.

    Returns:
        Name of an option -> the widths of the modules that the option is for.
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
