"""Make pathways: named masks over one set of weights, each made anew from time to time.

Dynamic ASR Pathways (arXiv 2309.13018) has one mask for each language. Magnitudes are those of all
weights, masked weights included. So a dropped block comes back when the kept weights fall below it,
or when another pathway has trained it.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from asrprune.errors import UserError, nearest
from asrprune.weight_pruning.bank import MaskBank


def renew(bank: MaskBank, name: str, sparsity: float, most: float = 1.0) -> float:
    """Make a named mask from the bank's present levels.

    Args:
        bank: the masks.
        name: of the mask.
        sparsity: of the mask.
        most: maximum density of the union of all named masks, in each layer. A single mask may be
            denser. Where the union would be denser, the lowest-ranked blocks that only this mask
            keeps are replaced by the best blocks that other masks keep.

    Returns:
        how much the mask has changed: 1 less its overlap (Jaccard) with the mask before; 1 for a
        new mask.
    """
    before = bank.blocks(name) if name in bank.names else None
    others = [other for other in bank.names if other != name]
    blocks = bank.blocks(sparsity)
    if most < 1 and others:
        union, levels = bank.union(*others), bank.levels()
        blocks = {
            layer: _within(kept, union[layer], levels[layer], most)
            for layer, kept in blocks.items()
        }
    bank.name(name, blocks)
    return 1.0 if before is None else 1 - bank.overlap(before, name)


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


def _within(wanted: Tensor, others: Tensor, levels: Tensor, most: float) -> Tensor:
    """Return as many blocks (n,) bool as are wanted, within the maximum density of the union.

    Blocks that other masks keep do not make the union denser. They replace the lowest-ranked wanted
    blocks that no other mask keeps, as far as needed.

    Args:
        wanted: (n,) bool, the blocks of the mask without a maximum.
        others: (n,) bool, the union of the other masks.
        levels: (n,) uint8, higher for blocks that are kept longer.
        most: maximum density of the union.
    """
    count = int(wanted.sum())
    room = max(math.floor(most * len(wanted)), count) - int(others.sum())
    order = torch.argsort(levels.int(), descending=True, stable=True)
    alone = order[(wanted & ~others)[order]]
    result = wanted.clone()
    result[alone[max(room, 0) :]] = False
    shared = order[(others & ~wanted)[order]]
    result[shared[: count - int(result.sum())]] = True
    return result
