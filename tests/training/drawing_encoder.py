"""Encoders as others write them: they draw from every generator, forwards and backwards."""

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

# called before each draw with its place ("forward" or "backward"); tests stop there
WATCHERS: list[Callable[[str], None]] = []


def drawn(place: str, sources: str) -> float:
    """A draw of the named generators: ``p`` of Python, ``n`` of numpy, ``t`` of torch."""
    for watcher in WATCHERS:
        watcher(place)
    draws = {
        "p": random.random,
        "n": np.random.rand,
        "t": lambda: torch.rand(()).item(),
    }
    return 1.0 + 0.1 * sum(draws[source]() - 0.5 for source in sources)


class Whiten(torch.autograd.Function):
    """Identity, whose gradient is scaled by a draw, as of Zipformer's balancers."""

    @staticmethod
    def forward(ctx, x, sources, owner):
        ctx.sources, ctx.owner = sources, owner
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        factor = drawn("backward", ctx.sources)
        ctx.owner.strength = 0.5 * ctx.owner.strength + 0.5 * factor  # kept as a plain number
        return gradient * factor * ctx.owner.strength, None, None


class Drawing(nn.Module):
    """Every second frame through layers that draw, one of which is computed twice."""

    def __init__(self, num_features: int, sources: str = "pnt", recompute: bool = True):
        super().__init__()
        self.embed = nn.Linear(num_features, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.sources = sources
        self.recompute = recompute
        self.strength = 1.0
        self.output_dim = 16
        self.subsampling = 2

    def output_lengths(self, x_lens):
        return (x_lens + 1) // 2

    def _layer(self, x):
        return self.layers[1](x * drawn("forward", self.sources)).relu()

    def forward(self, x, x_lens):
        x = self.embed(x[:, ::2]) * drawn("forward", self.sources)  # in evaluation mode too
        x = Whiten.apply(self.layers[0](x), self.sources, self)
        x = checkpoint(self._layer, x, use_reentrant=False) if self.recompute else self._layer(x)
        lengths = self.output_lengths(x_lens)
        return x * (torch.arange(x.size(1)) < lengths[:, None])[..., None], lengths


def drawing(num_features: int, **options):
    return Drawing(num_features, **options)
