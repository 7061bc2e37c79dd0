"""lhotse's own sampler, with the options of a config: what pruning nothing must be equal to."""

import warnings

from lhotse import CutSet
from lhotse.dataset import DynamicBucketingSampler

from asrprune.data.options import DataOptions


def stock_sampler(
    cuts: CutSet, duration_bins: list[float], options: DataOptions, seed: int, rank: int, world: int
) -> DynamicBucketingSampler:
    """Batches of cuts of similar duration; each rank takes every ``world``-th batch.

    The bins are fixed ones from the validate stage: estimated anew from the first cuts of a sorted
    manifest they would be badly wrong.
    """
    with warnings.catch_warnings():
        # an eager CutSet is meant: small corpora stay in memory
        warnings.filterwarnings("ignore", "You are using DynamicBucketingSampler with an eager")
        return DynamicBucketingSampler(
            cuts,
            max_duration=options.max_duration,
            max_cuts=options.max_cuts or None,
            num_buckets=len(duration_bins) + 1,
            duration_bins=duration_bins,
            shuffle=True,
            drop_last=False,
            buffer_size=options.buffer_size,
            seed=seed,
            rank=rank,
            world_size=world,
        )
