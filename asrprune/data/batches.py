"""Make batches of cuts with a sampler, a dataset and a loader; any batch can be made again.

A position in the training data is (epoch, batches consumed). The sampler is a pure function of the
seed and the epoch, and every random draw of the dataset is keyed. So nothing else must be saved.
"""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet, load_manifest_lazy
from lhotse.cut import Cut
from lhotse.dataset import SimpleCutSampler
from lhotse.dataset.sampling.base import CutSampler
from torch.utils.data import Dataset, Sampler

from asrprune.base.errors import UserError
from asrprune.base.randomness import kept_global_generators, key_to_seed, seed_cpu_generators
from asrprune.data.augment import KeyedNoise, KeyedSpecAugment
from asrprune.data.features import compute_features, load_features
from asrprune.data.lengths import exceeds
from asrprune.data.loader import load_batches
from asrprune.data.options import DataOptions
from asrprune.data.tokenizer import Tokenizer, normalise
from asrprune.data_pruning.descriptions import transcript
from asrprune.data_pruning.time_dropping import TimeDropping, share_left

log = logging.getLogger(__name__)

Batch = dict[str, Any]


def open_cuts(manifest_dir: str | Path, corpus: str, split: str, lazy: bool = False) -> CutSet:
    """Return the validated cuts of a split.

    Raises:
        UserError: The manifest is missing, or ``corpus`` is empty.
    """
    if not corpus:
        raise UserError(
            f"data.corpus is not set: the prefix of {manifest_dir}/<corpus>_cuts_{split}.jsonl.gz"
        )
    path = Path(manifest_dir) / f"{corpus}_cuts_{split}.jsonl.gz"
    if not path.is_file():
        raise UserError(f"{path} does not exist; the validate stage (3) makes it")
    cuts = load_manifest_lazy(path)
    return cuts if lazy else cuts.to_eager()


def part_of(cuts: CutSet, max_seconds: float | None) -> CutSet:
    """Choose at least one cut, at most ``max_seconds`` in total, in the order of the set.

    The choice is a pure function of the cuts' ids and durations, so the choice is the same for all
    models and seeds. A larger part contains a smaller part as far as durations allow. With
    ``max_seconds`` None, all cuts are chosen.
    """
    if max_seconds is None:
        return cuts
    chosen: set[str] = set()
    seconds = 0.0
    for cut in sorted(cuts, key=lambda cut: key_to_seed("part of a development set", cut.id)):
        if not chosen or seconds + cut.duration <= max_seconds:
            chosen.add(cut.id)
            seconds += cut.duration
    return cuts.filter(lambda cut: cut.id in chosen).to_eager()


def alignable(
    cuts: CutSet, tokenizer: Tokenizer, output_lengths: Callable[[torch.Tensor], torch.Tensor]
) -> CutSet:
    """Leave out the cuts that have more tokens than encoder frames.

    Args:
        cuts: Cuts with features. Lazy cuts are read once.
        tokenizer: Makes the tokens.
        output_lengths: The encoder's function from feature frames (B,) to encoder frames (B,).

    Returns:
        The cuts that are not left out, in their order. If no cut is left out, ``cuts`` itself is
        returned, so that the lines of a lazy manifest can still be skipped.

    Raises:
        UserError: All cuts would be left out.
    """
    left_out: list[str] = []
    lengths: dict[int, int] = {}  # feature frames -> encoder frames

    def fits(cut: Cut) -> bool:
        if (frames := cut.num_frames) not in lengths:
            lengths[frames] = int(output_lengths(torch.tensor([frames])))
        if exceeds(tokenizer, normalise(transcript(cut)), lengths[frames]):
            left_out.append(cut.id)
            return False
        return True

    count, fitting = 0, []
    for cut in cuts:
        count += 1
        if fits(cut) and not cuts.is_lazy:
            fitting.append(cut)
    if not left_out:
        return cuts
    if len(left_out) == count:
        raise UserError(
            f"all {count} cuts have more tokens than encoder frames, such as {left_out[0]}. "
            "Check that the texts belong to the audio, or take a tokenizer of longer pieces "
            "(--vocab-size)"
        )
    log.warning(
        "left out %d of %d cuts, with more tokens than encoder frames: %s%s",
        len(left_out),
        count,
        ", ".join(left_out[:8]),
        " ..." if len(left_out) > 8 else "",
    )
    if not cuts.is_lazy:
        return CutSet.from_cuts(fitting)
    unfit = frozenset(left_out)

    def is_fit(cut: Cut) -> bool:
        return cut.id not in unfit

    return cuts.filter(is_fit)


class SpeechDataset(Dataset):
    """Map-style dataset that makes a batch of a :class:`CutSet` of the sampler.

    A batch is a dict with these keys:

    - ``features`` (B, T, F) float32, padded with 0, and ``feature_lens`` (B,)
    - ``tokens`` (B, S), padded with 0, and ``token_lens`` (B,)
    - ``cut_ids``: B ids
    - ``seconds``: seconds of all cuts before time dropping
    - ``seconds_left``: seconds of all cuts after time dropping
    - ``clamped``: number of cuts whose time dropping was limited, because tokens need frames
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        augment: KeyedSpecAugment | None = None,
        noise: KeyedNoise | None = None,
        dropping: TimeDropping | None = None,
        seed: int = 0,
    ):
        self.tokenizer = tokenizer
        self.augment = augment
        self.noise = noise
        self.dropping = dropping
        self.seed = seed
        self.epoch = 0

    def __getitem__(self, cuts: CutSet) -> Batch:
        with kept_global_generators():
            return self._batch(cuts)

    def _batch(self, cuts: CutSet) -> Batch:
        features, tokens, ids, clamped, seconds_left = [], [], [], 0, 0.0
        for cut in cuts:
            # reading a cut may draw random numbers too: for its augmentation, or for dither
            seed_cpu_generators(key_to_seed("cut", self.seed, self.epoch, cut.id))
            symbols = self.tokenizer.encode(transcript(cut))
            source = self.noise(cut, self.epoch) if self.noise else cut
            frames, is_clamped, share_left = self._frames(source, cut.id, len(symbols))
            clamped += is_clamped
            seconds_left += cut.duration * share_left
            if self.augment:
                frames = self.augment(frames, self.epoch, cut.id)
            features.append(frames)
            tokens.append(torch.tensor(symbols, dtype=torch.int64))
            ids.append(cut.id)
        return {
            "features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
            "feature_lens": torch.tensor([len(x) for x in features]),
            "tokens": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "token_lens": torch.tensor([len(x) for x in tokens]),
            "cut_ids": ids,
            "seconds": float(sum(cut.duration for cut in cuts)),
            "seconds_left": float(seconds_left),
            "clamped": clamped,
        }

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return [len(self.tokenizer.encode(text)) for text in texts]

    def _frames(self, cut: Cut, name: str, num_tokens: int) -> tuple[torch.Tensor, bool, float]:
        """Return features (T, F), whether the tokens limited time dropping, and the share left.

        Samples and feature frames are dropped here. The model itself drops encoder frames: for
        the level ``encoder`` this method only computes the share that will be left of the cut.
        """
        dropping = self.dropping
        if not (dropping and dropping.active):
            return load_features(cut), False, 1.0
        if dropping.acts_on("encoder"):
            frames = load_features(cut)
            length = int(dropping.encoder.of(len(frames)))
            keep, clamped = dropping.plan(length, name, num_tokens)
            return frames, clamped, float(share_left(int(keep.sum()), length))
        clamped = False
        if dropping.acts_on("samples"):

            def drop(samples: torch.Tensor, hop: int) -> torch.Tensor:
                nonlocal clamped
                samples, clamped = dropping.samples(samples, hop, name, num_tokens)
                return samples

            frames = compute_features(cut, drop)
        else:
            frames, clamped = dropping.frames(load_features(cut), name, num_tokens)
        return frames, clamped, float(share_left(len(frames), cut.num_frames))


def language_of(cut: Any) -> str | None:
    """Return the language of a cut's supervisions; None if they have none or several."""
    languages = {segment.language for segment in cut.supervisions}
    return languages.pop() or None if len(languages) == 1 else None


def training_dataset(
    tokenizer: Tokenizer,
    options: DataOptions,
    seed: int,
    dropping: TimeDropping | None = None,
) -> SpeechDataset:
    """Return the training dataset, with the augmentation that the options ask for."""
    augment = options.spec_augment.probability > 0
    return SpeechDataset(
        tokenizer,
        KeyedSpecAugment(options.spec_augment, seed) if augment else None,
        KeyedNoise(options.noise, seed) if options.noise.cuts else None,
        dropping,
        seed,
    )


class _From(Sampler):
    """Sample the batches of one epoch, from batch ``skip`` (from 0) on."""

    def __init__(self, sampler: CutSampler, epoch: int, skip: int):
        self.sampler = sampler
        self.epoch = epoch
        self.skip = skip

    def __iter__(self) -> Iterator[CutSet]:
        self.sampler.set_epoch(self.epoch)
        # Skipping batches costs as much as lhotse's own restore, and needs no sampler state. That
        # state runs ahead of the consumed batches by the batches that the workers have prefetched.
        for index, cuts in enumerate(self.sampler):
            if index >= self.skip:
                yield cuts


def epoch_loader(
    sampler: CutSampler,
    dataset: SpeechDataset,
    epoch: int,
    skip: int,
    options: DataOptions,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Return an iterator over the batches ``skip``, ``skip + 1``, … of an epoch.

    Batches are numbered from 0, epochs from 1. Workers start with the first batch, and end with the
    iterator.

    Raises:
        UserError: Features cannot be read. The iterator raises the error at the batch concerned.
    """
    dataset.epoch = epoch
    batches = _From(sampler, epoch, skip)
    return load_batches(dataset, batches, options.num_workers, epoch, pin_memory)


def dev_loader(
    cuts: CutSet, tokenizer: Tokenizer, options: DataOptions, rank: int, world: int
) -> Iterator[Batch]:
    """Return an iterator over every ``world``-th batch of a dev set, beginning with ``rank``.

    Cuts are sorted from the shortest to the longest. There is no augmentation and no time dropping.
    """
    sampler = SimpleCutSampler(
        cuts.sort_by_duration(ascending=True),
        max_duration=options.max_duration,
        world_size=1,
        rank=0,
    )
    batches = _Every(sampler, rank, world)
    return load_batches(SpeechDataset(tokenizer), batches, options.num_workers)


class _Every(Sampler):
    """Sample every ``world``-th batch, beginning with batch ``rank`` (from 0)."""

    def __init__(self, sampler: SimpleCutSampler, rank: int, world: int):
        self.sampler = sampler
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[CutSet]:
        return islice(self.sampler, self.rank, None, self.world)
