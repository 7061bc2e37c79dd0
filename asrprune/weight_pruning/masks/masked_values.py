"""Masked copies of parameters, and hooks that mask their gradients."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from asrprune.weight_pruning.masks.blocks import masked
from asrprune.weight_pruning.masks.prunable import Layer, as_matrix


def masked_copies(
    layers: Sequence[Layer], blocks: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Copy weights, with exact zeros outside of the kept blocks. The copies can be differentiated.

    Args:
        layers: the layers.
        blocks: the kept blocks (blocks,) bool of each layer, by its name.
        weights: a tensor of the parameter's shape for each layer, by its name.
    """
    return {layer.name: _inside(weights[layer.name], layer, blocks[layer.name]) for layer in layers}


def masked_values(
    layers: Sequence[Layer], blocks: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Return `masked_copies` of the parameters' values, which parameters can hold."""
    # no inference tensors: parameters that are trained cannot hold them
    with torch.inference_mode(False), torch.no_grad():
        return masked_copies(layers, blocks, {name: one.data for name, one in parameters.items()})


def zero_gradients(
    layers: Sequence[Layer], blocks: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]
) -> list[RemovableHandle]:
    """Make each backward pass add zero gradients outside of the kept blocks.

    Returns:
        the hooks of the parameters; remove them to end this.
    """
    return [
        parameter.register_hook(partial(_inside, layer=layer, kept_blocks=blocks[layer.name]))
        for layer in layers
        if (parameter := parameters[layer.name]).requires_grad
    ]


def _inside(tensor: Tensor, layer: Layer, kept_blocks: Tensor) -> Tensor:
    """Copy a tensor of a layer's shape, with exact zeros outside of the kept blocks."""
    return masked(as_matrix(tensor), kept_blocks, layer.block).view(tensor.shape)
