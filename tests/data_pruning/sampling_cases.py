"""Cuts without audio, samplers of them, and training loops whose losses are made up."""

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from lhotse import CutSet, MonoCut, SupervisionSegment
from lhotse.dataset import DynamicBucketingSampler
from torch.utils.data import DataLoader

from asrprune.base.randomness import key_to_seed
from asrprune.data_pruning.ids import utterance_id
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import DataPruningOptions, TimeDroppingOptions
from asrprune.data_pruning.sampler import PruningSampler
from tests.training.command import assert_same

BINS = [3.0, 5.0, 7.0]
EPOCHS = 5  # one of warm-up, three pruned ones, one on everything
POLICIES: dict[str, dict[str, Any]] = {
    "random": {"rescale": True},
    "easy2hard": {"strata": 2, "max_age": 2},
    "infobatch": {"keep": 0.5},
    "orderdp": {"strata": 0, "max_age": 0, "unit": "utterances"},
}


def make_cuts(count: int = 40, speeds: tuple[float, ...] = ()) -> CutSet:
    """Cuts of 1 to 9 seconds in no order; copies at other speeds follow each."""
    durations = np.random.default_rng(count).uniform(1, 9, count).round(2).tolist()
    cuts = []
    for number, duration in enumerate(durations):
        for name, factor in [("", 1.0), *((f"_sp{speed}", speed) for speed in speeds)]:
            cuts.append(make_cut(f"cut-{number:03d}{name}", round(duration / factor, 2)))
    return CutSet.from_cuts(cuts)


def make_cut(name: str, duration: float) -> MonoCut:
    said = SupervisionSegment(
        id=name, recording_id=name, start=0, duration=duration, text="A B", speaker=name[-1]
    )
    return MonoCut(id=name, start=0, duration=duration, channel=0, supervisions=[said])


def make_options(policy: str = "random", **values: Any) -> DataPruningOptions:
    """Options of a policy, whose training of `EPOCHS` is as said there."""
    return DataPruningOptions(
        policy,
        **{"keep": 0.6, "anneal": 0.2, "time": TimeDroppingOptions(start=0.0, end=1.0), **values},
    )


def make_sampler(
    cuts: CutSet, options: DataPruningOptions | None = None, epochs: int = EPOCHS, **values: Any
) -> PruningSampler:
    """A sampler, by default of all cuts."""
    options = options or DataPruningOptions()
    values = {"duration_bins": BINS, "max_duration": 20.0, "seed": 3, **values}
    index = CutIndex.from_cuts(cuts, options.share_copies)
    return PruningSampler(cuts, index, options, epochs=epochs, **values)


def make_stock(cuts: CutSet, **values: Any) -> DynamicBucketingSampler:
    """Lhotse's own sampler with the same settings."""
    values = {"max_duration": 20.0, "duration_bins": BINS, "seed": 3, **values}
    return DynamicBucketingSampler(cuts, num_buckets=len(BINS) + 1, shuffle=True, **values)


def names_of(batches) -> list[list[str]]:
    return [[cut.id for cut in batch] for batch in batches]


class Names:
    """A dataset whose batches are the names of their cuts."""

    def __getitem__(self, cuts: CutSet) -> list[str]:
        return [cut.id for cut in cuts]


def made_up_losses(names: list[str], epoch: int) -> list[float]:
    """Of each cut: some are hard, all fall, none is the same twice."""
    hardness = [key_to_seed(utterance_id(name)) % 97 / 10 + 1 for name in names]
    return [
        hard * (1 + key_to_seed(name, epoch) % 89 / 100) / (epoch + 1)
        for name, hard in zip(names, hardness, strict=True)
    ]


def train(sampler: PruningSampler, workers: int = 0, last: int = EPOCHS) -> Iterator[tuple]:
    """A training loop up to epoch ``last``; what is yielded after a batch tells all about it."""
    for epoch in range(sampler.epoch, last):
        sampler.set_epoch(epoch)
        loader = DataLoader(
            Names(),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            generator=torch.Generator(),
        )
        for names in loader:
            weights = sampler.weights_of(names)
            sampler.update(names, made_up_losses(names, epoch), [2] * len(names))
            yield epoch, names, None if weights is None else weights.tolist(), sampler.plan.digest


def train_with_states(sampler: PruningSampler, workers: int = 0) -> tuple[list, list]:
    """What `train` yields, and the state after each batch."""
    batches, states = [], []
    for batch in train(sampler, workers):
        batches.append(batch)
        states.append(sampler.gathered_state_dict())
    return batches, states


def resume(make: Callable[[], PruningSampler], state: dict, **how: Any) -> tuple[list, dict]:
    """The batches after a state, and the last state; ``make`` makes a sampler at the start."""
    sampler = make()
    before = copy.deepcopy(state)
    sampler.load_state_dict(state)
    batches = list(train(sampler, **how))
    assert_same(state, before)  # neither loading nor training on changes it
    return batches, sampler.gathered_state_dict()


def on_two_ranks(root: Path, check: Callable[..., None], *words: Any) -> None:
    """Run ``check(rank, *words)`` in two processes that are ranks on gloo."""
    # forked: a fresh interpreter takes seconds to import torch and lhotse
    mp.start_processes(_rank_main, (root, check, words), nprocs=2, start_method="fork")


def _rank_main(rank: int, root: Path, check: Callable[..., None], words: tuple) -> None:
    os.environ.pop("WORLD_SIZE", None)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{root}/rendezvous", rank=rank, world_size=2)
    check(rank, *words)
    dist.barrier()
    dist.destroy_process_group()
