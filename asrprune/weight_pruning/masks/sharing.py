"""Measure how much several masks of one bank share: union, intersection, overlap of each two.

Overlap is Jaccard's: weights that both masks keep over weights that either mask keeps. Chance
values are those of random masks. Random masks keep as many blocks of each layer as the real masks,
drawn independently. The chance overlap is the expected number of weights that both keep, over the
expected number that either keeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.sizes import elements

Blocks = Mapping[str, Tensor]  # the kept blocks (blocks,) bool of each layer


@dataclass(frozen=True)
class Sharing:
    """Counts of weights that N masks keep of L layers, and what follows from them."""

    names: list[str]  # N
    layers: list[str]  # L
    weights: np.ndarray  # (L,) int64: size of each layer
    kept: np.ndarray  # (N, L) int64: kept by each mask
    either: np.ndarray  # (L,) int64: kept by any of the masks
    common: np.ndarray  # (L,) int64: kept by all masks
    pairs: np.ndarray  # (N, N) int64: kept by both masks of a pair
    shares: np.ndarray  # (N, L) float64: shares of blocks; all others count weights

    @property
    def densities(self) -> np.ndarray:
        """The density of each mask, (N,)."""
        return self.kept.sum(1) / self.weights.sum()

    @property
    def union(self) -> float:
        """The density of the union of all masks."""
        return float(self.either.sum() / self.weights.sum())

    @property
    def shared(self) -> float:
        """The density of the intersection of all masks."""
        return float(self.common.sum() / self.weights.sum())

    @property
    def overlap(self) -> np.ndarray:
        """Weights that both masks keep over weights that either keeps, (N, N); 1 if none."""
        own = self.kept.sum(1)
        return _ratio(self.pairs, own[:, None] + own - self.pairs)

    @property
    def chance_overlap(self) -> np.ndarray:
        """The overlap of each two masks by chance, (N, N); 1 of a mask with itself."""
        both = np.einsum("al,bl,l->ab", self.shares, self.shares, self.weights)
        own = self.shares @ self.weights
        chance = _ratio(both, own[:, None] + own - both)
        np.fill_diagonal(chance, 1.0)
        return chance

    @property
    def chance_union(self) -> float:
        """The density of the union by chance."""
        return float(self._mean(1 - np.prod(1 - self.shares, axis=0)))

    @property
    def chance_shared(self) -> float:
        """The density of the intersection by chance."""
        return float(self._mean(np.prod(self.shares, axis=0)))

    @property
    def equal_union(self) -> float:
        """The least density of the union: 1-s, if all masks have sparsity s and are equal."""
        return float(self.densities.max())

    @property
    def independent_union(self) -> float:
        """The density of the union of independent masks: 1-s^N, if all masks have sparsity s.

        This uses densities over all layers; `chance_union` uses those of each layer.
        """
        return float(1 - np.prod(1 - self.densities))

    def _mean(self, shares: np.ndarray) -> np.ndarray:
        """Return the mean of shares (L,), weighted by the layers' sizes."""
        return shares @ self.weights / self.weights.sum()


def sharing(bank: MaskBank, names: Sequence[str]) -> Sharing:
    """Measure what named masks share.

    Raises:
        UserError: there are no names, or a name has no mask.
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
    """Return the blocks (blocks,) bool of each layer that all masks keep: a choice of the bank.

    Raises:
        UserError: a name has no mask.
    """
    common = reduce(_both, map(bank.blocks, names))
    return dict(common)


def _both(one: Blocks, other: Blocks) -> dict[str, Tensor]:
    return {name: kept & other[name] for name, kept in one.items()}


def _share(kept: Tensor) -> float:
    return int(torch.count_nonzero(kept)) / len(kept)


def _count(bank: MaskBank, blocks: Blocks) -> np.ndarray:
    """Return the kept weights of each layer, (L,) int64."""
    counts = [
        sum(
            elements(layer.of(blocks[group.name]), layer.shape, layer.block)
            for layer in group.layers
        )
        for group in bank.groups
    ]
    return np.array(counts, dtype=np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide part by whole; 1 where the whole is 0."""
    return np.divide(part, whole, out=np.ones(np.shape(whole)), where=whole > 0)
