"""A small model with layers to gate, optimisers of every kind for it, and what is compared."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from asrprune.weight_pruning.masks.blocks import expand, parse_block
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.masks.prunable import find_layers

OPTIMIZERS = {
    "adamw": partial(AdamW, lr=1e-2, weight_decay=0.1, foreach=False),
    "adamw-foreach": partial(AdamW, lr=1e-2, weight_decay=0.1, foreach=True),
    "adamw-fused": partial(AdamW, lr=1e-2, weight_decay=0.1, fused=True),
    "adamw-amsgrad": partial(AdamW, lr=1e-2, weight_decay=0.1, amsgrad=True, betas=(0.8, 0.95)),
    "adam": partial(Adam, lr=1e-2),
    "adam-l2-maximize": partial(Adam, lr=1e-2, weight_decay=0.1, maximize=True),
    "sgd": partial(SGD, lr=1e-2, weight_decay=0.1),
    "sgd-nesterov": partial(SGD, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd-dampening": partial(
        SGD, lr=1e-2, momentum=0.9, dampening=0.4, weight_decay=0.1, maximize=True
    ),
    "sgd-fused": partial(SGD, lr=1e-2, momentum=0.9, fused=True),
    "rmsprop": partial(RMSprop, lr=1e-3, weight_decay=0.1),
    "rmsprop-centered": partial(RMSprop, lr=1e-3, momentum=0.5, centered=True),
}
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


class Net(nn.Module):
    """Two layers (one a convolution) whose rows and columns 8x1 does not all divide, and a norm."""

    def __init__(self, rows=36, columns=24):
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(columns, rows)
        self.norm = nn.LayerNorm(rows)
        self.last = nn.Conv1d(rows, 16, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).tanh()[..., None])


def net(make=OPTIMIZERS["adamw"], block="8x1", **sizes):
    """A model, its optimiser, gated."""
    model = Net(**sizes)
    block = parse_block(block)
    parameters = dict(model.named_parameters())
    layers = find_layers(model, block, ragged="pad")
    optimizer = make(model.parameters())
    chosen = {layer.name: (parameters[layer.name], layer) for layer in layers}
    return model, GatedOptimizer(optimizer, chosen)


def random_gates(gated, seed, density=0.5):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(len(counts), generator=generator) < density
        for name, counts in gated.counts.items()
    }


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def masks_of(gated, gates):
    """Which entries are active, in the shape of each layer's parameter."""
    return {
        name: expand(gates[name], layer.shape, layer.block).view(parameter.shape)
        for name, (parameter, layer) in gated.layers.items()
    }


def same_bits(a, b):
    """Equal as stored: NaN is itself, and -0 is not 0."""
    assert a.dtype == b.dtype and a.shape == b.shape
    return a.numpy().tobytes() == b.numpy().tobytes()


def values(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same_model(a, b):
    return all(map(same_bits, values(a).values(), values(b).values()))
