"""Choose which utterances, and which parts of them, train in each cycle (dynamic data pruning).

The package works with any training loop. It needs torch, numpy and lhotse. An index numbers the
cuts of a manifest. Training gathers a score for each utterance. Before each cycle (one or more
epochs) a policy turns the scores into a plan, which does not change within the cycle. The sampler
makes batches of the cuts that the plan keeps.

A training loop of your own looks as follows. ``losses`` (B,) are the losses of a batch's cuts, each
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

A checkpoint holds ``sampler.state_dict()``. Before the loop ``sampler.load_state_dict`` restores
it. Lhotse's datasets put ``cut`` into a batch if they have ``return_cuts=True``. Call ``update``
once for each batch that was trained on. Do not call it where the loss is computed: validation, and
scans for batches that do not fit in memory, compute losses too.
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

# Modules are imported at first use: the options alone need neither torch nor lhotse.
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
