"""Drop time in batches of lhotse's own dataset for speech recognition, which icefall uses.

A training loop of your own looks as follows, with a sentencepiece model ``sp`` and the encoder's
``output_lengths``::

    def count_tokens(texts):
        return [len(ids) for ids in sp.encode(texts)]

    dropping = TimeDropping(options.time, seed, subsampling=4, output_lengths=output_lengths)
    index = CutIndex.from_cuts(cuts, count_tokens=count_tokens)
    sampler = PruningSampler(cuts, index, options, ...)
    sampler.drop_time(lambda: dropping.seconds_left(index), dropping.mean_share_left)
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        dropping.active, dropping.cycle = sampler.drops_time, epoch
        for batch in loader:
            batch = drop_from_batch(batch, dropping, count_tokens)
            ...
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.data_pruning.time_dropping import TimeDropping, drop_encoder_frames
from asrprune.data_pruning.token_counts import CountTokens, token_counts

PADDING = math.log(1e-10)  # the value that lhotse pads features with


def drop_from_batch(
    batch: dict[str, Any], dropping: TimeDropping, count_tokens: CountTokens | None = None
) -> dict[str, Any]:
    """Drop feature frames of a batch of lhotse's `K2SpeechRecognitionDataset`.

    A training loop calls this on each batch of the training set, in the training process, where
    ``active`` and ``cycle`` are set at each epoch::

        for batch in train_dl:
            batch = drop_from_batch(batch, dropping, count_tokens)

    Frames are dropped only in the supervision, which has ``num_frames`` frames from ``start_frame``
    on. Frames before the supervision stay. Frames after it count as padding. Transforms of the
    dataset, such as SpecAugment, run before time dropping, so their time masks get shorter too.

    Args:
        batch: the dataset's batch of features, with ``return_cuts=True`` and one supervision for
            each cut.
        dropping: time dropping at the level ``frames``. At the level ``encoder`` the batch stays as
            it is: the encoder drops frames, with `TimeDropping.frame_transform`.
        count_tokens: function from texts to the number of tokens of each; enough frames stay for
            these tokens. None: transcripts do not matter.

    Returns:
        The batch itself while nothing is dropped. Else a new batch with shorter ``inputs``
        (B, T, F), where T is the longest length left. ``num_frames``, and ``word_start`` and
        ``word_end`` of an alignment, are changed to match.

    Raises:
        UserError: the batch is of audio, has no cuts, or several supervisions for a cut; or the
            options drop samples.
    """
    if dropping.options.variant == "none" or dropping.options.level == "encoder":
        return batch
    _check_batch(batch, dropping)
    if not dropping.acts_on("frames"):
        return batch
    inputs, about = batch["inputs"], dict(batch["supervisions"])
    starts, counts = about["start_frame"].tolist(), about["num_frames"].tolist()
    tokens = [0] * len(counts)
    if count_tokens:
        tokens = token_counts(count_tokens, about["text"]).tolist()
    keeps = []
    for start, count, cut, least in zip(starts, counts, about["cut"], tokens, strict=True):
        length = max(0, min(count, inputs.size(1) - start))
        keep = dropping.plan(length, cut.id, least).keep
        keeps.append(torch.cat((torch.ones(start, dtype=torch.bool), keep)))
    ends = about["start_frame"].long() + about["num_frames"].long()
    inputs, left = drop_encoder_frames(inputs, ends, keeps, PADDING)
    about["num_frames"] = (left.to(ends) - about["start_frame"]).to(about["num_frames"])
    for name in {"word_start", "word_end"} & about.keys():
        about[name] = [
            _moved(frames, keep) for frames, keep in zip(about[name], keeps, strict=True)
        ]
    return {**batch, "inputs": inputs, "supervisions": about}


def _moved(frames: Sequence[int], keep: Tensor) -> list[int]:
    """Return the positions of frames after dropping: how many kept frames come before each."""
    before = [0, *keep.cumsum(0).tolist()]
    return [before[min(frame, len(keep))] for frame in frames]


def _check_batch(batch: dict[str, Any], dropping: TimeDropping) -> None:
    """Check that `drop_from_batch` can do what the options ask for.

    Raises:
        UserError: the options or the batch do not allow it.
    """
    about = batch["supervisions"]
    if dropping.options.level != "frames":
        raise UserError(
            f"data_pruning.time.level={dropping.options.level}: samples of a finished batch of "
            "K2SpeechRecognitionDataset cannot be dropped. Set level=frames, or call "
            "TimeDropping.samples where your dataset reads audio."
        )
    if "num_frames" not in about or batch["inputs"].dim() != 3:
        raise UserError(
            f"a batch of K2SpeechRecognitionDataset holds audio, inputs of shape "
            f"{tuple(batch['inputs'].shape)}. Time dropping needs features (B, T, F). Give the "
            "dataset input_strategy=OnTheFlyFeatures(...) or PrecomputedFeatures()."
        )
    if "cut" not in about:
        raise UserError(
            "a batch of K2SpeechRecognitionDataset holds no cuts, whose ids time dropping needs. "
            "Make the dataset with return_cuts=True."
        )
    rows = about["sequence_idx"].tolist()
    if rows != list(range(len(batch["inputs"]))):
        twice = next((row for at, row in enumerate(rows) if row in rows[:at]), None)
        which = "a cut of a batch has no supervision"
        if twice is not None:
            which = (
                f"cut {about['cut'][rows.index(twice)].id!r} of a batch has several supervisions"
            )
        raise UserError(
            f"{which}. Time dropping needs one supervision for each cut. Use "
            "cuts.trim_to_supervisions(), and no CutConcatenate."
        )
