"""Choose the sub-networks that a step trains: a pure function of (seed, step, rank, number).

So all ranks know the sub-networks of each rank without communication. A resumed training goes on
with the same sub-networks. Omni-sparsity DNN (arXiv 2110.08352) trains all of them jointly.
"""

import math
from collections.abc import Sequence

import numpy as np

from asrprune.base.randomness import key_to_seed
from asrprune.weight_pruning.options import SupernetOptions

GRID = 10  # tenths of sparsity
Sparsities = dict[str, float]  # layer's name -> its sparsity


def sub_networks(
    layers: Sequence[str],
    options: SupernetOptions,
    sparsest: float,
    seed: int,
    step: int,
    rank: int = 0,
    number: int = 0,
) -> list[Sparsities]:
    """Return the sub-networks that one micro-batch trains, each by a forward and a backward pass.

    ``single``: the dense, the sparsest or a random sub-network, with the probabilities of the
    options. ``sandwich``: some random sub-networks, the sparsest, and last the dense one (Yu and
    Huang 2019, arXiv 1903.05134). At sparsity 0 there is only the dense sub-network.

    Args:
        layers: names of the layers.
        options: the options of the training.
        sparsest: the maximum sparsity of each layer, 0 to 1.
        seed: the seed of the training.
        step: the step of the optimiser.
        rank: the rank that trains the micro-batch.
        number: of the micro-batch within the step.
    """
    dense, least = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, sparsest)
    if not sparsest:  # no other sub-network exists yet
        return [dense]
    random = np.random.default_rng(key_to_seed("supernet", seed, step, rank, number))
    if options.sampling == "sandwich":
        drawn = [_draw(layers, options, sparsest, random) for _ in range(options.random)]
        return [*drawn, least, dense]
    place = random.random()
    if place < options.dense:
        return [dense]
    if place < options.dense + options.sparsest:
        return [least]
    return [_draw(layers, options, sparsest, random)]


def densest(networks: Sequence[Sparsities]) -> Sparsities:
    """Return the union of the masks of some sub-networks, as the least sparsity of each layer.

    The masks of sub-networks are nested within each layer.
    """
    return {name: min(network[name] for network in networks) for name in networks[0]}


def windows(options: SupernetOptions, sparsest: float) -> list[list[float]]:
    """Return the largest sets of sparsities that the layers of one random sub-network may have.

    Each combination of sparsities of one set can be drawn, and no other combination. With
    ``space=uniform`` there is one set. With ``space=mean`` a set has neighbouring sparsities: a
    common mean exists from which the jitter and the rounding to tenths reach each of them.

    Args:
        options: the options of the training.
        sparsest: the maximum sparsity of each layer, 0 to 1.

    Returns:
        ascending sets of ascending sparsities. The dense and the sparsest sub-network are trained
        too, whether or not a set holds their sparsity.
    """
    tenths = range(_most(sparsest) + 1)
    values = np.minimum(np.array(tenths) / GRID, sparsest).tolist()
    if options.space == "uniform":
        return [values]
    reach = GRID * options.jitter + 0.5  # from the common mean, in tenths
    found: list[list[float]] = []
    end = 0
    for first in tenths:
        # the highest common mean that reaches the first tenth
        mean = min(first + reach, GRID * sparsest)
        last = sum(tenth - reach < mean - 1e-9 for tenth in tenths)
        if last > max(first, end):
            found.append(values[first:last])
            end = last
    return found


def _most(sparsest: float) -> int:
    """Return the maximum of a layer's tenths of sparsity; it stands for the sparsest."""
    return math.ceil(GRID * sparsest - 1e-6)


def _draw(
    layers: Sequence[str], options: SupernetOptions, sparsest: float, random: np.random.Generator
) -> Sparsities:
    """Draw each layer's sparsity, in tenths or the sparsest: independently, or about a random mean.

    Independent draws for many layers have nearly the same mean each time. With the mean drawn
    first, every size is trained.
    """
    most = _most(sparsest)
    if options.space == "uniform":
        tenths = random.integers(0, most + 1, len(layers))
    else:
        spread = GRID * options.jitter
        middle = random.uniform(0, GRID * sparsest)
        tenths = np.rint(middle + random.uniform(-spread, spread, len(layers))).clip(0, most)
    drawn = np.minimum(tenths / GRID, sparsest)
    return dict(zip(layers, drawn.tolist(), strict=True))
