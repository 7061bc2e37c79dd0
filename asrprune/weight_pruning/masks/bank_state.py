"""Check saved masks against the bank that loads them, and join and split the tensors of groups."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bits import packed_size
from asrprune.weight_pruning.masks.groups import CHANNEL, HEAD, LAYER, Group


def check_state(state: Mapping[str, Any], mine: Mapping[str, Any], counts: Sequence[int]) -> None:
    """Check that saved masks fit a bank.

    Args:
        state: the saved masks.
        mine: the bank's unit, criterion, scope and layers.
        counts: the number of units of each group of the bank.

    Raises:
        UserError: the state holds no masks, is damaged, or has other layers, another unit,
            criterion or scope than the bank.
    """
    if missing := [key for key in (*mine, "levels", "named") if key not in state]:
        raise UserError(f"these are no saved masks: no {missing[0]!r} in them")
    for key in ("unit", "criterion", "scope"):
        if state[key] != mine[key]:
            words = f"weight_pruning.{key}={state[key]}"
            if key == "unit" and state[key] not in (CHANNEL, LAYER, HEAD):
                words = f"weight_pruning.unit=block weight_pruning.block={state[key]}"
            raise UserError(
                f"the saved masks are of {key} {state[key]!r}, and this model is pruned with "
                f"{mine[key]!r}; set {words} or start anew"
            )
    for index in range(max(len(state["layers"]), len(mine["layers"]))):
        saved, own = (
            "{} of {}x{}".format(*layers[index]) if index < len(layers) else "none"
            for layers in (state["layers"], mine["layers"])
        )
        if saved != own:
            raise UserError(
                f"the saved masks are of another model: pruned layer {index + 1} is {saved} "
                f"there and {own} here"
            )
    sizes = {"levels": (state["levels"], sum(counts))}
    for name, bits in state["named"].items():
        sizes[f"mask {name!r}"] = bits, sum(map(packed_size, counts))
    for what, (bits, size) in sizes.items():
        if len(bits) != size:
            raise UserError(f"the saved masks are damaged: {what} of {len(bits)} bytes, not {size}")


def joined(groups: Sequence[Group], tensors: Mapping[str, Tensor]) -> Tensor:
    """Join the tensors of all groups, in the order of the groups, into a new tensor on the CPU."""
    return torch.cat([tensors[group.name].cpu() for group in groups])


def parted(
    places: Iterable[tuple[Group, torch.device]], tensor: Tensor, sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Split a tensor of `joined` into new tensors by the names of the groups.

    Args:
        places: each group, and the device for its tensor.
        tensor: the joined tensor.
        sizes: the number of elements of each group's tensor.
    """
    parts = zip(places, tensor.split(list(sizes)), strict=True)
    return {group.name: part.to(device, copy=True) for (group, device), part in parts}
