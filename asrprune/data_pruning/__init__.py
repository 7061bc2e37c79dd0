"""Dynamic data pruning: which utterances, and which parts of them, train in a cycle.

Works alone, with torch, numpy and lhotse. An index numbers the cuts of a manifest; scores are
gathered while training; a policy turns them into a frozen plan for each cycle; the sampler makes
batches of what the plan keeps. In a training loop of one's own, whose ``losses`` are (B,), each
summed over the ``num_tokens`` (B,) of its cut::

    from asrprune.data_pruning import CutIndex, DataPruningOptions, PruningSampler

    options = DataPruningOptions("infobatch", keep=0.7)
    index = CutIndex.from_cuts(cuts)
    sampler = PruningSampler(cuts, index, options, epochs=epochs, max_duration=seconds)
    for epoch in sampler.remaining_epochs:
        sampler.set_epoch(epoch)
        for batch in DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=workers):
            losses, num_tokens = compute_losses(batch)
            own_cuts = batch["supervisions"]["cut"]
            weights = sampler.weights_of(own_cuts)
            take_step(losses if weights is None else losses * torch.from_numpy(weights).to(losses))
            sampler.update(own_cuts, losses, num_tokens)

A checkpoint holds ``sampler.state_dict()``, which ``sampler.load_state_dict`` takes before the
loop. ``cut`` in a batch of lhotse's is due to ``return_cuts=True`` of its datasets. ``update``
stands beside the optimiser's step and not where the loss is computed: validation and scans of
memory compute losses too.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asrprune.data_pruning.context import Context, Ranking, Selection
    from asrprune.data_pruning.index import CutIndex
    from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions, preset
    from asrprune.data_pruning.sampler import PruningSampler
    from asrprune.data_pruning.time_batches import drop_from_batch
    from asrprune.data_pruning.time_dropping import TimeDropping

# Imported when asked for: the options alone need neither torch nor lhotse.
_WHERE = {
    "Context": "context",
    "CutIndex": "index",
    "DataPruningOptions": "options",
    "PruningSampler": "sampler",
    "Ranking": "context",
    "Selection": "context",
    "TimeDropping": "time_dropping",
    "TimeDroppingOptions": "options",
    "drop_from_batch": "time_batches",
    "preset": "options",
}
__all__ = [
    "Context",
    "CutIndex",
    "DataPruningOptions",
    "PruningSampler",
    "Ranking",
    "Selection",
    "TimeDropping",
    "TimeDroppingOptions",
    "drop_from_batch",
    "preset",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
