"""Apply the masks of a sub-network to a module's state dict."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import Choice, MaskBank


def masked_state(state: Mapping[str, Any], bank: MaskBank, choice: Choice) -> dict[str, Any]:
    """Return a state dict with exact zeros (+0) where the weights of a sub-network are masked.

    Kept weights keep every bit. All names of a tied parameter are masked.

    Args:
        state: state dict of the bank's module or of a module like it, such as an average of
            checkpoints.
        bank: the masks.
        choice: the sub-network.

    Raises:
        UserError: the state lacks a layer, or has another shape for it.
    """
    values = {}
    for name, mask in bank.masks(choice).items():
        weight = _checked(name, state.get(name), mask)
        values[name] = weight.masked_fill(~mask.to(weight.device), 0)
    # one tensor for all names of a tied parameter, as in the module
    values |= {name: values[first] for name, first in bank.tied().items()}
    return {name: values.get(name, value) for name, value in state.items()}


def _checked(name: str, weight: Tensor | None, mask: Tensor) -> Tensor:
    """Return a weight of a state; refuse a state of another model."""
    if weight is None:
        raise UserError(f"the masks are of another model: the weights given have no {name}")
    if weight.shape != mask.shape:
        raise UserError(
            f"the masks are of another model: {name} is {tuple(mask.shape)} there and "
            f"{tuple(weight.shape)} in the weights given"
        )
    return weight
