"""Score units to first order: about how much the loss would change without a unit.

The loss without a unit is about ``loss - sum of weight * gradient`` over the unit's weights. The
score is the mean of the square of this sum over training steps. Source: Molchanov et al. 2019,
"Importance estimation for neural network pruning", arXiv 1906.10771, equation 8, with the gradient
of a step in place of the gradient of an example.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.cutting import has_rows
from asrprune.weight_pruning.masks.groups import Group
from asrprune.weight_pruning.masks.prunable import Layer, as_matrix


class FirstOrderScores:
    """First-order scores of the units of some groups, collected between two rankings."""

    def __init__(self, groups: Sequence[Group], device: torch.device | str = "cpu"):
        """Begin without any gradients.

        Args:
            groups: groups of channels, layers or heads.
            device: the device of the parameters.
        """
        self.groups = list(groups)
        # by name of a group, (units,): sums of squares since the last ranking
        self._sums = self._zeros(torch.float32, device)
        self._steps = self._zeros(torch.int32, device)  # number of steps in the sums

    @torch.no_grad()
    def add(self, parameters: Mapping[str, Tensor], gate: Mapping[str, Tensor] | None) -> None:
        """Add the gradients of a step, before the optimiser moves the weights.

        Args:
            parameters: name of a layer -> its parameter.
            gate: name of a group -> the units (units,) bool that the step trained. None: all.
        """
        for group in self.groups:
            change = torch.zeros_like(self._sums[group.name])
            missing = True
            for layer in group.layers:
                parameter = parameters[layer.name]
                if parameter.grad is not None:
                    layer.add_to(change, _by_block(layer, parameter * parameter.grad))
                    missing = False
            if missing:
                continue
            active = 1 if gate is None else gate[group.name].to(change.device)
            self._sums[group.name].add_(change.square_().mul_(active))
            self._steps[group.name].add_(active)

    def renew(self) -> dict[str, Tensor] | None:
        """Return the scores (units,) float32 of each group, and begin to collect anew.

        A unit that no step has trained since the last ranking has the score 0: its last score is of
        larger gradients, and would exceed those of trained units as the loss falls.

        Returns:
            the scores, by the group's name; None if no step has trained anything since the last
            ranking.
        """
        if not any(bool(steps.any()) for steps in self._steps.values()):
            return None
        scores = {
            name: self._sums[name] / steps.clamp(min=1) for name, steps in self._steps.items()
        }
        for collected in (*self._sums.values(), *self._steps.values()):
            collected.zero_()
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Return the sums and the numbers of steps of each group."""
        return {"sums": self._sums, "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            UserError: the state has other groups.
        """
        for key, own in self.state_dict().items():
            saved = state[key]
            sizes = {name: len(values) for name, values in own.items()}
            if sizes != {name: len(values) for name, values in saved.items()}:
                raise UserError("the first-order scores are of another model, or of other units")
        for key, own in self.state_dict().items():
            for name, values in own.items():
                values.copy_(state[key][name])

    def _zeros(self, dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
        return {
            group.name: torch.zeros(group.units, dtype=dtype, device=device)
            for group in self.groups
        }


def _by_block(layer: Layer, values: Tensor) -> Tensor:
    """Return the sum of each block's values (shape of the parameter): (blocks,) float32."""
    if layer.blocks == 1:
        return values.float().sum().view(1)
    rows = has_rows(layer)
    sums = as_matrix(values).float().sum(1 if rows else 0)
    width = layer.block.rows if rows else layer.block.columns
    return sums.view(-1, width).sum(1) if width > 1 else sums
