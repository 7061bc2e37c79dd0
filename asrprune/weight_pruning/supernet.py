"""Which sub-networks of a supernet a step trains: a pure function of (seed, step, rank, number).

So all ranks know what each of them trains without a word between them, and a resumed training goes
on with the same ones (Omni-sparsity DNN, arXiv 2110.08352, trains all of them jointly).
"""

import math
from collections.abc import Sequence

import numpy as np

from asrprune.randomness import key_to_seed
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
    """The sub-networks that one micro-batch trains, each by a forward and a backward pass.

    ``single``: the dense one, the sparsest one or one drawn at random, with the probabilities that
    the options say. ``sandwich``: the densest, the sparsest, and some at random (Yu and Huang 2019,
    arXiv 1903.05134); the dense one comes last. As long as nothing is sparse, there is only that.

    Args:
        sparsest: the sparsity of all layers that none exceeds, 0 to 1.
        number: of the micro-batch within the step.
    """
    dense, least = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, sparsest)
    if not sparsest:  # there is no other one yet
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
    """The union of the masks of some sub-networks, which are nested within each layer."""
    return {name: min(network[name] for network in networks) for name in networks[0]}


def windows(options: SupernetOptions, sparsest: float) -> list[list[float]]:
    """The largest sets of sparsities that the layers of one drawn sub-network may have.

    Each combination of sparsities of one set can be drawn, and no other combination. With
    ``space=uniform`` there is one set. With ``space=mean`` a set has neighbouring sparsities: a
    common mean exists from which the jitter, and the rounding to tenths, reach each of them.

    Args:
        options: the options of the training.
        sparsest: the sparsity of all layers that none exceeds, 0 to 1.

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
        # the highest common mean that reaches the first one
        mean = min(first + reach, GRID * sparsest)
        last = sum(tenth - reach < mean - 1e-9 for tenth in tenths)
        if last > max(first, end):
            found.append(values[first:last])
            end = last
    return found


def _most(sparsest: float) -> int:
    """The last of the tenths that a layer may have; it stands for the sparsest."""
    return math.ceil(GRID * sparsest - 1e-6)


def _draw(
    layers: Sequence[str], options: SupernetOptions, sparsest: float, random: np.random.Generator
) -> Sparsities:
    """Sparsities in tenths, or the sparsest: each at random, or about a mean that is drawn first.

    Independent draws for many layers have nearly the same mean each time, so the mean comes first:
    every size is then trained.
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
