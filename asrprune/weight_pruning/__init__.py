"""Weight pruning with many masks over one set of weights.

This package needs torch and numpy alone: it knows neither speech nor a trainer. A layer is one
prunable parameter as a matrix. It is pruned in blocks, such as 8x1: 8 outputs of one input. Each
block has one of 250 levels, at which it drops. So a byte for each block gives the masks of all
sparsities. The model's parameters keep their names, and masks are never part of the model. This is
a training loop for any model, with two sub-networks of its weights::

    import torch
    from asrprune.weight_pruning import GatedOptimizer, MaskBank
    from asrprune.weight_pruning import find_layers, masked_state, parse_block

    layers = find_layers(model, parse_block("8x1"), exclude=["head.*"])
    bank = MaskBank(model, layers)
    optimizer = GatedOptimizer(
        torch.optim.AdamW(model.parameters()),
        {layer.name: (model.get_parameter(layer.name), layer) for layer in layers},
    )
    for step, batch in enumerate(batches):
        if step % 100 == 0:
            bank.refresh()
        optimizer.zero_grad()
        for sparsity in (0.5, 0.8):
            with bank.apply(sparsity):
                compute_loss(model, batch).backward()
        optimizer.step(bank.union(0.5, 0.8))
    alone = masked_state(model.state_dict(), bank, 0.8)  # a sub-network by itself

The optimiser is a ``torch.optim.Optimizer``, for schedulers and a ``GradScaler``. A checkpoint
holds the state dicts of model, bank and optimizer.

`find_channels` finds channels between two matrices, which are pruned together. `find_stack` finds
the layers of an ``nn.ModuleList``, which are pruned whole, and `find_heads` heads of attention. Use
``bank.cut`` in place of ``bank.apply``: inside, the module computes with smaller matrices, or with
fewer layers. ``GatedOptimizer`` then needs ``bank.gates()`` too. `cut_state` returns the state of a
smaller module.

`scaled_dropout` drops less in smaller sub-networks. Call `with_tensor_dropout` before a module is
compiled: else torch compiles it anew for each probability of ``nn.Dropout``.
"""

from importlib import import_module
from typing import Any

# public name -> its module. Modules are imported at the first use, as the options of a config need
# no torch.
_HOMES = {
    "Block": "options",
    "GatedOptimizer": "masks.gated",
    "Layer": "masks.prunable",
    "MaskBank": "masks.bank",
    "PathwaysOptions": "options",
    "ScheduleOptions": "options",
    "SearchOptions": "search.options",
    "SupernetOptions": "options",
    "WeightPruningOptions": "options",
    "additive_cost": "search.space",
    "densest": "supernet",
    "Group": "masks.groups",
    "cut_state": "masks.cutting",
    "find_channels": "masks.groups",
    "find_layers": "masks.prunable",
    "find_heads": "masks.groups",
    "find_stack": "masks.groups",
    "masked_state": "masks.masked_weights",
    "narrow": "pathways",
    "needs_refresh": "schedule",
    "parse_block": "options",
    "pathway_of": "pathways",
    "ranks_from_mask": "pathways",
    "renew": "pathways",
    "scaled_dropout": "dropout",
    "search_sparsities": "search.searching",
    "share_at": "pathways",
    "sparsity_at": "schedule",
    "sub_networks": "supernet",
    "with_tensor_dropout": "dropout",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return all names, with those that are not imported yet."""
    return sorted({*globals(), *__all__})
