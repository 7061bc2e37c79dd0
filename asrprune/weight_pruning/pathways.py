"""Make pathways: named masks over one set of weights, each made anew from time to time.

Dynamic ASR Pathways (arXiv 2309.13018) has one mask for each language. There are two ways to make a
mask anew. By the magnitude of all weights, masked weights included (`MaskBank.refresh`, then
`renew`): magnitudes know nothing of the language, so the masks of all languages become one mask. Or
from the mask itself (`ranks_from_mask`): a mask keeps the largest of its own blocks, and exchanges
a few of them for those outside with the largest gradients of the language. So masks that differ
stay different, and masks that begin equal become different.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from asrprune.base.errors import UserError, nearest
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.blocks import check_finite
from asrprune.weight_pruning.masks.groups import unit_scores


def renew(
    bank: MaskBank,
    name: str,
    sparsity: float,
    max_union_density: float = 1.0,
    protected: Sequence[str] = (),
    unclaimed: float = 0.0,
) -> float:
    """Make a named mask from the bank's present levels.

    Args:
        bank: the masks.
        name: of the mask.
        sparsity: of the mask.
        max_union_density: maximum density of the union of all named masks, in each layer. A
            single mask may be denser. Where the union would be denser, the lowest-ranked blocks
            that only this mask keeps are replaced by the best blocks that other masks keep.
        protected: names of masks whose blocks cannot be trained.
        unclaimed: least share of the mask that no protected mask keeps, in each layer, as far as
            there are such blocks. The lowest-ranked protected blocks are replaced by the best
            unclaimed blocks. ``max_union_density`` has priority: it may replace them again.

    Returns:
        how much the mask has changed: 1 less its overlap (Jaccard) with the mask before; 1 for a
        new mask.
    """
    before = bank.blocks(name) if name in bank.names else None
    others = [other for other in bank.names if other != name]
    blocks = bank.blocks(sparsity)
    if protected and unclaimed:
        claimed, levels = bank.union(*protected), bank.levels()
        blocks = {
            layer: _with_unclaimed(kept, ~claimed[layer], levels[layer], unclaimed)
            for layer, kept in blocks.items()
        }
    if max_union_density < 1 and others:
        union, levels = bank.union(*others), bank.levels()
        blocks = {
            layer: _within(kept, union[layer], levels[layer], max_union_density)
            for layer, kept in blocks.items()
        }
    bank.name(name, blocks)
    return 1.0 if before is None else 1 - bank.overlap(before, name)


def ranks_from_mask(
    bank: MaskBank, name: str, sparsity: float, share: float, gradients: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rank the units for a new mask that is made from the mask before.

    The new mask keeps the highest-scored units of the mask before. It exchanges a share of its
    units for those outside of the mask before that have the largest gradients (RigL, Evci et al.
    2020, arXiv 1911.11134, section 3, with the gradients of one language). Units without gradients
    are not taken, unless the mask before is too small.

    Args:
        bank: the masks.
        name: of the mask.
        sparsity: of the new mask.
        share: of the units of the new mask, 0 to 1.
        gradients: for each group's name, mean squares of the gradients (units,). A group that is
            missing has no gradients.

    Returns:
        for each group's name, scores (units,) float32 for `MaskBank.refresh`. The new mask has the
        units with the highest scores.

    Raises:
        UserError: a weight is NaN or infinite; or the bank's blocks do not compete within a whole
            layer, as in patterns N:M.
    """
    if bank.block.group or bank.scope != "layer":
        raise UserError("a mask is made from itself within whole layers: use scope=layer, no N:M")
    before, kept, parameters = bank.blocks(name), bank.blocks(sparsity), bank.parameters()
    ranks = {}
    for group in bank.groups:
        weights = unit_scores(group, parameters, bank.criterion)
        check_finite(group.name, weights)
        slopes = gradients.get(group.name)
        slopes = torch.zeros_like(weights) if slopes is None else slopes
        count = int(kept[group.name].sum())
        ranks[group.name] = _ranks(before[group.name], weights, slopes, count, share)
    return ranks


def share_at(progress: float, first: float, freeze: float) -> float:
    """Return the share of a mask that is exchanged: half a cosine, from ``first`` down to 0.

    Args:
        progress: progress of the training, 0 to 1.
        first: the share at the start.
        freeze: progress from which nothing is exchanged.
    """
    if progress >= freeze:
        return 0.0
    return first * 0.5 * (1 + math.cos(math.pi * progress / freeze))


def narrow(bank: MaskBank, name: str, sparsity: float) -> None:
    """Prune a named mask: of its blocks, keep those that the present weights rank highest.

    This is the step of iterative magnitude pruning (Han et al. 2015, arXiv 1506.02626, section 3).
    Afterwards the bank's levels are those of this mask.

    Args:
        bank: the masks.
        name: of the mask.
        sparsity: the new sparsity.

    Raises:
        UserError: the mask keeps fewer blocks of a layer already.
    """
    before = bank.blocks(name)
    bank.refresh(among=name)
    kept = bank.blocks(sparsity)
    for layer, blocks in kept.items():
        if (blocks & ~before[layer]).any():
            raise UserError(
                f"mask {name!r} keeps {int(before[layer].sum())} blocks of {layer}, fewer than at "
                f"sparsity {sparsity:g}: ask for a higher sparsity"
            )
    bank.name(name, kept)


def pathway_of(names: Iterable[str], language: str) -> str:
    """Return the name of a language's mask.

    Raises:
        UserError: the language is not among the names.
    """
    if language in names:
        return language
    raise UserError(
        f"there is no pathway for language {language!r}{nearest(language, names)}; there are: "
        f"{', '.join(names)}"
    )


def _ranks(own: Tensor, weights: Tensor, slopes: Tensor, count: int, share: float) -> Tensor:
    """Return scores (units,) of which the ``count`` highest are those of a new mask.

    Args:
        own: (units,) bool, the mask before.
        weights: (units,) scores of the weights.
        slopes: (units,) mean squares of the gradients.
        count: units of the new mask.
        share: share of ``count`` to exchange.
    """
    order = torch.argsort(weights, descending=True, stable=True)
    mine = order[own[order]]
    order = order[torch.argsort(slopes[order], descending=True, stable=True)]
    others = order[~own[order]]
    exchanged = min(round(share * count), int((slopes[others] > 0).sum()))
    stay = min(len(mine), count - exchanged)
    come = count - stay
    order = torch.cat((mine[:stay], others[:come], mine[stay:], others[come:]))
    ranks = torch.empty_like(weights, dtype=torch.float32)
    ranks[order] = torch.arange(len(order), 0, -1, dtype=torch.float32, device=ranks.device)
    return ranks


def _with_unclaimed(wanted: Tensor, free: Tensor, levels: Tensor, share: float) -> Tensor:
    """Return as many blocks (n,) bool as are wanted, of which a share is free.

    Args:
        wanted: (n,) bool, the best blocks.
        free: (n,) bool, the blocks that may be trained.
        levels: (n,) uint8, higher for better blocks.
        share: least share of free blocks.
    """
    count = int(wanted.sum())
    order = torch.argsort(levels.int(), descending=True, stable=True)
    come = order[(free & ~wanted)[order]]
    missing = min(math.ceil(share * count) - int((wanted & free).sum()), len(come))
    if missing <= 0:
        return wanted
    result = wanted.clone()
    result[come[:missing]] = True
    result[order[(wanted & ~free)[order]][-missing:]] = False
    return result


def _within(wanted: Tensor, others: Tensor, levels: Tensor, max_union_density: float) -> Tensor:
    """Return as many blocks (n,) bool as are wanted, within the maximum density of the union.

    Blocks that other masks keep do not make the union denser. They replace the lowest-ranked wanted
    blocks that no other mask keeps, as far as needed.

    Args:
        wanted: (n,) bool, the blocks of the mask without a maximum.
        others: (n,) bool, the union of the other masks.
        levels: (n,) uint8, higher for blocks that are kept longer.
        max_union_density: maximum density of the union.
    """
    count = int(wanted.sum())
    room = max(math.floor(max_union_density * len(wanted)), count) - int(others.sum())
    order = torch.argsort(levels.int(), descending=True, stable=True)
    alone = order[(wanted & ~others)[order]]
    result = wanted.clone()
    result[alone[max(room, 0) :]] = False
    shared = order[(others & ~wanted)[order]]
    result[shared[: count - int(result.sum())]] = True
    return result
