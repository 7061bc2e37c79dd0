"""Train a change of low rank for each matrix, in place of the matrix (LoRA).

A matrix ``W`` (R, C) stays as it is. The training moves ``A`` (rank, C) and ``B`` (R, rank), and
the model computes with ``W + B A`` (Hu et al. 2021, arXiv 2106.09685, with a scale of 1). ``B``
begins as zeros, so a training begins with the model's own outputs. Other weights are trained as
usual: norms, biases, the predictor and the joiner.

`merged_state` adds the changes to the matrices. A model file of stage 6 holds the sums. The changes
in these sums are products of the means of ``A`` and ``B`` over steps.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.training.freezing import freeze
from asrprune.weight_pruning.masks.prunable import as_matrix, find_layers
from asrprune.weight_pruning.options import Block

NAME = "low_rank"  # of the module that holds the changes
_PREFIX = f"{NAME}."


class LowRank(nn.Module):
    """Hold the changes of some matrices of a model, and apply them by hooks."""

    def __init__(self, names: list[str], rank: int, model: nn.Module, seed: int):
        """Make changes that are zero.

        Args:
            names: names of the matrices in the model.
            rank: rank of each change.
            model: the model.
            seed: seed of the random values of ``A``.
        """
        super().__init__()
        self.names = names
        # names of parameters must not contain dots
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        generator = torch.Generator().manual_seed(seed)
        for name in names:
            matrix = as_matrix(model.get_parameter(name))
            a = torch.randn(rank, matrix.shape[1], generator=generator) / matrix.shape[1] ** 0.5
            self.a[_key(name)] = nn.Parameter(a.to(matrix))
            self.b[_key(name)] = nn.Parameter(matrix.new_zeros(len(matrix), rank))
        self._kept: list[tuple[nn.Module, str, nn.Parameter]] = []

    def attach(self, model: nn.Module) -> None:
        """Make the model compute with the changes in each call of ``model(...)``."""
        model.register_forward_pre_hook(self._add)
        model.register_forward_hook(self._restore, always_call=True)

    def _add(self, model: nn.Module, inputs: Any) -> None:
        for name in self.names:
            path, _, key = name.rpartition(".")
            part = model.get_submodule(path)
            weight = part._parameters[key]
            self._kept.append((part, key, weight))
            with torch.autocast(weight.device.type, enabled=False):  # as `merged_state` does
                change = self.b[_key(name)] @ self.a[_key(name)]
            part._parameters[key] = weight + change.view_as(weight)

    def _restore(self, model: nn.Module, inputs: Any, outputs: Any) -> None:
        for part, key, weight in self._kept:
            part._parameters[key] = weight
        self._kept.clear()


def add_low_rank(model: nn.Module, config: Config) -> None:
    """Add changes of rank ``training.lora_rank`` to a model, and freeze the matrices themselves.

    The matrices are the encoder's matrices that ``weight_pruning.include`` and ``exclude`` select,
    without the matrices that ``training.freeze`` names.

    Raises:
        UserError: the training prunes weights, or starts from no model; the rank is not below the
            sizes of a matrix; a matrix is not of the encoder, or has two names; or the names match
            no matrix.
    """
    rank = config.training.lora_rank
    if not rank:
        return
    key = f"training.lora_rank={rank}"
    pruning = config.weight_pruning
    if pruning.method != "none":
        raise UserError(
            f"{key}: matrices stand still, and weight_pruning.method={pruning.method} trains them. "
            "Leave one of the options out"
        )
    if not config.training.init_from:
        raise UserError(
            f"{key}: matrices stand still, so training.init_from must name a trained model"
        )
    freeze(model, config.training.freeze)
    layers = find_layers(model, Block(1, 1), pruning.include, pruning.exclude, pruning.recurrent)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    layers = [layer for layer in layers if model.get_parameter(layer.name).requires_grad]
    for layer in layers:
        if not layer.name.startswith("encoder."):
            raise UserError(
                f"{key}: is for matrices of the encoder. Leave {layer.name} out of "
                "weight_pruning.include"
            )
        if len(found := names[id(model.get_parameter(layer.name))]) > 1:
            raise UserError(
                f"{key}: {found[0]} is {found[1]} too. Leave it out by weight_pruning.exclude"
            )
        if rank >= min(layer.shape):
            raise UserError(
                f"{key}: {layer.name} is {layer.rows} x {layer.columns}. Set a lower rank, or "
                "leave the matrix out by weight_pruning.exclude"
            )
        model.get_parameter(layer.name).requires_grad_(False)
    changes = LowRank([layer.name for layer in layers], rank, model, config.seed)
    model.add_module(NAME, changes)
    changes.attach(model)


def without_low_rank(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a model without the changes."""
    return {name: value for name, value in state.items() if not name.startswith(_PREFIX)}


def merged_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of a model with each change added to its matrix.

    A state without changes is returned as it is.
    """
    found = without_low_rank(state)
    changes = [name for name in state if name.startswith(f"{_PREFIX}a.")]
    known = {_key(name): name for name in found}
    for change in changes:
        name = known[change.removeprefix(f"{_PREFIX}a.")]
        a, b = state[change], state[f"{_PREFIX}b.{_key(name)}"]
        found[name] = found[name] + (b @ a).view_as(found[name])
    return found


def _key(name: str) -> str:
    """Return a parameter's name without dots."""
    return name.replace(".", "/")
