"""Joins data pruning to a training: its sampler, where time is dropped, what is left of it."""

import inspect
from typing import Any

import torch
from lhotse import CutSet
from torch import nn

from asrprune.config import Config
from asrprune.corpus.batches import SpeechDataset
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.sampler import PruningSampler
from asrprune.data_pruning.time_dropping import TimeDropping
from asrprune.errors import UserError
from asrprune.training.distributed import Ranks


def make_pruning_sampler(
    cuts: CutSet, duration_bins: list[float], config: Config, ranks: Ranks, dataset: SpeechDataset
) -> PruningSampler:
    """Batches of what the config's policy keeps; epochs are counted from 1.

    :raises UserError: options that do not fit each other or the cuts.
    """
    options, data = config.data_pruning, config.data
    sampler = PruningSampler(
        cuts,
        CutIndex.from_cuts(cuts, options.share_copies),
        options,
        epochs=config.training.epochs,
        duration_bins=duration_bins,
        max_duration=data.max_duration,
        max_cuts=data.max_cuts or None,
        buffer_size=data.buffer_size,
        seed=config.seed,
        first_epoch=1,
        rank=ranks.rank,
        world_size=ranks.world,
    )
    if dataset.dropping:
        # a cut's frames are some 10 ms apart; what counts is the share of them that is left
        sampler.drop_time(
            lambda cut: cut.duration * dataset.frames_left(cut) / cut.num_frames,
            1 - options.time.rho,
        )
    return sampler


def check_can_drop(encoder: nn.Module, name: str, options: TimeDroppingOptions) -> None:
    """:raises UserError: encoder frames are to be dropped, and the encoder has no place for it."""
    if options.place != "encoder":
        return
    if "frame_transform" not in inspect.signature(encoder.forward).parameters:
        raise UserError(
            f"data_pruning.time.place=encoder: {name} cannot drop frames after its subsampling; "
            "take place=frames"
        )


def encoder_frames(
    encoder: nn.Module, dropping: TimeDropping | None, batch: dict[str, Any]
) -> torch.Tensor:
    """How many encoder frames (B,) the loss of each cut of a training batch is over."""
    lengths = encoder.output_lengths(batch["feature_lens"])
    if not (dropping and dropping.acts_on("encoder")):
        return lengths
    cuts = zip(lengths.tolist(), batch["cut_ids"], batch["token_lens"].tolist(), strict=True)
    return torch.tensor([dropping.length_left(*cut) for cut in cuts])
