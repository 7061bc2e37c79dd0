"""How much several masks of one bank share: their union, what all keep, overlap of each two.

Overlap is that of Jaccard, weights that both keep over weights that either keeps. What masks share
by chance is that of ones which keep as many blocks of each layer, drawn at random and independently
of each other: the expected number of weights that both keep, over that of those that either keeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from asrprune.errors import UserError
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.sizes import elements

Blocks = Mapping[str, Tensor]  # the kept blocks (blocks,) bool of each layer


@dataclass(frozen=True)
class Sharing:
    """Counts of weights that N masks keep of L layers, and what follows from them."""

    names: list[str]  # N
    layers: list[str]  # L
    weights: np.ndarray  # (L,) int64: of each layer
    kept: np.ndarray  # (N, L) int64: by each mask
    either: np.ndarray  # (L,) int64: by any of the masks
    common: np.ndarray  # (L,) int64: by all of them
    pairs: np.ndarray  # (N, N) int64: by both of two
    shares: np.ndarray  # (N, L) float64: of blocks, where the other numbers are of weights

    @property
    def densities(self) -> np.ndarray:
        """(N,) of each mask."""
        return self.kept.sum(1) / self.weights.sum()

    @property
    def union(self) -> float:
        """The density of all masks together."""
        return float(self.either.sum() / self.weights.sum())

    @property
    def shared(self) -> float:
        """The density of what all masks keep."""
        return float(self.common.sum() / self.weights.sum())

    @property
    def overlap(self) -> np.ndarray:
        """(N, N) weights that both keep over weights that either keeps; 1 where none is kept."""
        own = self.kept.sum(1)
        return _ratio(self.pairs, own[:, None] + own - self.pairs)

    @property
    def chance_overlap(self) -> np.ndarray:
        """(N, N) what the overlap of two would be by chance; 1 of a mask with itself."""
        both = np.einsum("al,bl,l->ab", self.shares, self.shares, self.weights)
        own = self.shares @ self.weights
        chance = _ratio(both, own[:, None] + own - both)
        np.fill_diagonal(chance, 1.0)
        return chance

    @property
    def chance_union(self) -> float:
        """What the density of the union would be by chance."""
        return float(self._mean(1 - np.prod(1 - self.shares, axis=0)))

    @property
    def chance_shared(self) -> float:
        """What the density of that which all keep would be by chance."""
        return float(self._mean(np.prod(self.shares, axis=0)))

    @property
    def equal_union(self) -> float:
        """The least that the union's density can be: 1-s, if all have sparsity s and are equal."""
        return float(self.densities.max())

    @property
    def independent_union(self) -> float:
        """The union's density if masks were independent: 1-s^N, if all have sparsity s.

        Of the densities over all layers; `chance_union` knows those of each layer.
        """
        return float(1 - np.prod(1 - self.densities))

    def _mean(self, shares: np.ndarray) -> np.ndarray:
        """Of shares (L,), by the layers' weights."""
        return shares @ self.weights / self.weights.sum()


def sharing(bank: MaskBank, names: Sequence[str]) -> Sharing:
    """What named masks share.

    Raises:
        UserError: there are no names, or there is no mask of one.
    """
    if not names:
        raise UserError("there is no mask to measure")
    masks = [bank.blocks(name) for name in names]
    pairs = np.zeros((len(names), len(names)), dtype=np.int64)
    for row, one in enumerate(masks):
        for column, other in enumerate(masks[: row + 1]):
            pairs[row, column] = pairs[column, row] = _count(bank, _both(one, other)).sum()
    return Sharing(
        names=list(names),
        layers=[group.name for group in bank.groups],
        weights=np.array([group.size for group in bank.groups]),
        kept=np.stack([_count(bank, blocks) for blocks in masks]),
        either=_count(bank, bank.union(*masks)),
        common=_count(bank, reduce(_both, masks)),
        pairs=pairs,
        shares=np.array([[_share(kept) for kept in blocks.values()] for blocks in masks]),
    )


def intersection(bank: MaskBank, names: Sequence[str]) -> dict[str, Tensor]:
    """The blocks (blocks,) bool of each layer that all of these masks keep: a choice of the bank.

    Raises:
        UserError: there is no mask of a name.
    """
    return dict(reduce(_both, map(bank.blocks, names)))


def _both(one: Blocks, other: Blocks) -> Blocks:
    return {name: kept & other[name] for name, kept in one.items()}


def _share(kept: Tensor) -> float:
    return int(torch.count_nonzero(kept)) / len(kept)


def _count(bank: MaskBank, blocks: Blocks) -> np.ndarray:
    """The kept weights of each layer (L,) int64."""
    counts = [
        sum(elements(blocks[group.name], layer.shape, layer.block) for layer in group.layers)
        for group in bank.groups
    ]
    return np.array(counts, dtype=np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """1 where there is nothing to take a part of."""
    return np.divide(part, whole, out=np.ones(np.shape(whole)), where=whole > 0)
