"""Make padded batches of features for a search, from the longest cuts to the shortest."""

from collections.abc import Iterator

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import SimpleCutSampler
from torch import Tensor
from torch.utils.data import Dataset

from asrprune.base.randomness import kept_global_generators, key_to_seed, seed_cpu_generators
from asrprune.data.features import load_features
from asrprune.data.loader import load_batches
from asrprune.decoding.options import DecodingOptions


def feature_batches(
    cuts: CutSet, options: DecodingOptions
) -> Iterator[tuple[list[str], Tensor, Tensor]]:
    """Yield ``(cut ids, features (B, T, F) padded with zeros, lengths (B,))``, on the CPU.

    Args:
        cuts: cuts with features.
        options: the options of the search.

    Raises:
        UserError: the features of a cut cannot be read.
    """
    if not len(cuts):
        return
    sampler = SimpleCutSampler(
        cuts.sort_by_duration(),
        max_duration=options.max_duration,
        shuffle=False,
        world_size=1,
        rank=0,
    )
    yield from load_batches(_Features(), sampler, options.num_workers)


class _Features(Dataset):
    """Map a batch of cuts to ids, features (B, T, F) padded with zeros, and lengths (B,)."""

    def __getitem__(self, cuts: CutSet) -> tuple[list[str], Tensor, Tensor]:
        with kept_global_generators():
            frames = [_read(cut) for cut in cuts]
        lengths = torch.tensor([len(x) for x in frames])
        padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
        return [cut.id for cut in cuts], padded, lengths


def _read(cut: Cut) -> Tensor:
    """Read the features of a cut (T, F). Random draws depend only on the id of the cut."""
    seed_cpu_generators(key_to_seed("cut", cut.id))
    return load_features(cut)
