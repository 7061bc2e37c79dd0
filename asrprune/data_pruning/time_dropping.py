"""Time dropping: a keyed random part of an utterance is cut out, and the sequence gets shorter.

The time-wise half of DDP-ASR (arXiv 2406.18373): single frames (*points*), one *span*, or *chunks*
go and the rest is joined; the transcript stays. `plan_drop` decides. Adapters apply its plan to raw
samples, feature frames or encoder frames. `TimeDropping` binds them to the options and holds the
one switch. `asrprune.data_pruning.time_batches` applies it to batches of lhotse's own dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrprune.data_pruning.drop_plan import Drop, lengths_left, plan_drop
from asrprune.data_pruning.encoder_frames import EncoderFrames
from asrprune.data_pruning.index import CutIndex, chunks, hash_id
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_rivals import (
    fit_to_frames,
    mask_frames,
    speed_hundredths,
    speed_left,
    speed_up,
)
from asrprune.options import check


def frames_of(num_samples: int, hop: int) -> int:
    """Return the feature frames of samples with a frame shift of ``hop``, as lhotse counts."""
    return (num_samples + hop // 2) // hop


def drop_samples(samples: Tensor, keep: Tensor, hop: int) -> Tensor:
    """Return ``samples`` (..., T) without those of the frames that go.

    A frame is ``hop`` samples, and what is over belongs to the last one: the features of what is
    left then have as many frames as the plan left.

    Args:
        samples: raw audio, time in the last dimension.
        keep: (`frames_of` (T, hop),) bool of `plan_drop`.
        hop: samples of a frame shift.
    """
    if not len(keep):  # less than half a frame
        return samples
    before = len(keep) - 1  # frames of exactly hop samples, which move as blocks
    body = samples[..., : before * hop].unflatten(-1, (before, hop))
    last = samples[..., before * hop :] if keep[-1] else samples[..., :0]
    return torch.cat((body[..., keep[:-1], :].flatten(-2), last), dim=-1)


def drop_frames(features: Tensor, keep: Tensor) -> Tensor:
    """Return the frames of ``features`` (T, F) that ``keep`` (T,) bool of `plan_drop` keeps."""
    return features[keep]


def drop_encoder_frames(
    h: Tensor, h_lens: Tensor, keeps: Sequence[Tensor], padding: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Drop frames of a batch, of each utterance by a plan of its own; differentiable.

    Args:
        h: (B, T', D) frames, such as those after subsampling; T' may exceed the longest length.
        h_lens: (B,) int64.
        keeps: B plans of `plan_drop`, (h_lens[b],) bool each, on the CPU.
        padding: what stands past the lengths that are left.

    Returns:
        (B, longest length left, D), and (B,) the lengths left.
    """
    kept = [keep.nonzero().squeeze(1) for keep in keeps]
    left = torch.tensor([len(frames) for frames in kept])
    frames = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True)
    past = torch.arange(frames.size(1)) >= left.unsqueeze(1)
    frames, past = frames.to(h.device).unsqueeze(2), past.to(h.device).unsqueeze(2)
    # past the lengths frame 0 is repeated, and masking it gives that frame no gradient
    h = h.gather(1, frames.expand(-1, -1, h.size(2))).masked_fill(past, padding)
    return h, left.to(h_lens)


def share_left(left: np.ndarray | int, whole: np.ndarray | int) -> np.ndarray:
    """Return the share of N sequences that is left, (N,) float64; all of one without frames."""
    return np.where(np.equal(whole, 0), 1.0, np.minimum(left / np.maximum(whole, 1), 1))


class TimeDropping:
    """Drops time as the options ask for it, keyed by (seed, cycle, cut id).

    ``active`` is the one switch. It is off until the trainer turns it on, for the cycles of
    `PruningSampler.drops_time`; evaluation never does, and so never drops. ``cycle`` is the number
    of the pass over the data, for a fresh draw at every visit. Both are read at each call. Loader
    workers get them with the pickled object, so they are set before an epoch's workers start.

    Of the adapters `samples`, `frames`, `frame_transform` and `drop_from_batch` only that of the
    options' ``level`` does anything. Frames are those of the features that the model sees, or
    encoder frames for the level ``encoder``. Where the tokens of a cut are given, as many frames
    stay as the encoder needs to give a frame to each token (one frame of it, for no tokens).
    """

    def __init__(
        self,
        options: TimeDroppingOptions,
        seed: int,
        subsampling: int = 1,
        output_lengths: Callable[[Tensor], Tensor] | None = None,
        frame_shift: float = 0.01,
    ):
        """Bind time dropping to its options.

        Args:
            options: what is dropped, how much of it, and where.
            seed: of all draws.
            subsampling: feature frames per encoder frame.
            output_lengths: the encoder's own: feature frames (N,) -> encoder frames (N,). None:
                the encoder frames are ``ceil(feature frames / subsampling)``.
            frame_shift: seconds from a feature frame to the next one.

        Raises:
            UserError: an option is out of its limits.
        """
        check(options, "data_pruning.time.")
        self.options = options
        self.seed = seed
        self.active = False
        self.cycle = 0
        shrink = subsampling if options.level == "encoder" else 1
        self.chunk = max(1, round(options.chunk_seconds / (frame_shift * shrink)))
        self.encoder = EncoderFrames(output_lengths or (lambda x: -(-x // subsampling)))

    def acts_on(self, level: str) -> bool:
        """Return whether frames are dropped now, and at this level."""
        return self._on() and self.options.level == level

    @property
    def mean_share_left(self) -> float:
        """The share of the audio that is left while this is active, as the options ask for it."""
        saves = self.options.variant not in ("none", "mask")
        return 1 - self.options.drop_ratio if saves else 1.0

    def least(self, num_tokens: np.ndarray | int) -> np.ndarray:
        """Return how many frames must stay of cuts of so many tokens, (N,) int64.

        They are encoder frames for the level ``encoder``, and feature frames elsewhere.
        """
        encoder_frames = np.maximum(num_tokens, 1)
        if self.options.level == "encoder":
            return encoder_frames
        return self.encoder.needed(encoder_frames)

    def plan(self, length: int, cut_id: str, num_tokens: int = 0) -> Drop:
        """Return the plan of this cut in this cycle; it keeps all while inactive.

        For the variant ``mask`` it says what is not overwritten; ``speed`` has none.
        """
        if not self._on():
            return Drop(torch.ones(length, dtype=torch.bool), False)
        key = (self.seed, self.cycle, cut_id)
        return plan_drop(length, key=key, least=int(self.least(num_tokens)), **self._how)

    def length_left(self, length: int, cut_id: str, num_tokens: int = 0) -> int:
        """Return the length that the adapters leave of this cut; ``length`` while inactive.

        Lengths are feature frames, or encoder frames for the level ``encoder``.
        """
        [left] = self.lengths_left([length], np.array([hash_id(cut_id)], np.uint64), num_tokens)
        return int(left)

    def lengths_left(
        self,
        lengths: np.ndarray | Sequence[int],
        cut_hash: np.ndarray,
        num_tokens: np.ndarray | Sequence[int] | int = 0,
    ) -> np.ndarray:
        """Return the lengths that the adapters leave of N cuts in this cycle, (N,) int64.

        Args:
            lengths: (N,) feature frames, or encoder frames for the level ``encoder``.
            cut_hash: (N,) uint64, the `hash_id` of each cut id.
            num_tokens: (N,) tokens of the transcripts, or one number for all.
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        if not self._on() or self.options.variant == "mask":
            return lengths
        least = self.least(np.asarray(num_tokens))
        if self.options.variant == "speed":
            return speed_left(self.options.drop_ratio, lengths, least)
        key = (self.seed, self.cycle)
        return lengths_left(lengths, key=key, cut_hash=cut_hash, least=least, **self._how)

    def seconds_left(self, index: CutIndex) -> np.ndarray:
        """Return the seconds that are left of each cut of an index in this cycle, (N,) float32.

        A sampler fills batches by them. They are exact for the cuts of the index, provided that the
        index has the token counts that the adapters get. A copy that is made on the fly (such as
        ``_sp0.9``, ``_dup0`` or ``_pass1``) has an id of its own, and so draws on its own. For such
        a copy these seconds are those of the cut that it was made of, with the same mean.
        """
        seconds = index.duration.copy()
        if not self._on():
            return seconds
        for part in chunks(len(index)):
            frames = index.num_frames[part]
            if self.options.level == "encoder":
                frames = self.encoder.of(frames)
            tokens = 0 if index.num_tokens is None else index.num_tokens[part]
            left = self.lengths_left(frames, index.cut_hash[part], tokens)
            seconds[part] *= share_left(left, frames)
        return seconds

    def samples(
        self, samples: Tensor, hop: int, cut_id: str, num_tokens: int = 0
    ) -> tuple[Tensor, bool]:
        """Drop raw audio before features are computed.

        Args:
            samples: (..., T) of one cut.
            hop: samples of a frame shift.
            cut_id: of the cut.
            num_tokens: of its transcript.

        Returns:
            What is left of the samples, and whether the tokens held dropping back.
        """
        if not self.acts_on("samples"):
            return samples, False
        frames = frames_of(samples.size(-1), hop)
        if self.options.variant == "speed":
            drop_ratio, least = self.options.drop_ratio, int(self.least(num_tokens))
            clamped = speed_hundredths(drop_ratio, frames, least) > speed_hundredths(
                drop_ratio, frames
            )
            faster = speed_up(samples, drop_ratio, hop, least)
            left = self.length_left(frames, cut_id, num_tokens)
            return fit_to_frames(faster, left, hop), bool(clamped)
        keep, clamped = self.plan(frames, cut_id, num_tokens)
        return drop_samples(samples, keep, hop), clamped

    def frames(self, features: Tensor, cut_id: str, num_tokens: int = 0) -> tuple[Tensor, bool]:
        """Drop feature frames, before SpecAugment.

        SpecAugment's masks then are of the length that the model sees.

        Args:
            features: (T, F) of one cut.
            cut_id: of the cut.
            num_tokens: of its transcript.

        Returns:
            (frames left, F), and whether the tokens held dropping back.
        """
        if not self.acts_on("frames"):
            return features, False
        keep, clamped = self.plan(len(features), cut_id, num_tokens)
        if self.options.variant == "mask":
            return mask_frames(features, keep), clamped
        return drop_frames(features, keep), clamped

    def frame_transform(
        self, cut_ids: Sequence[str], num_tokens: Sequence[int]
    ) -> DropFrames | None:
        """Return what an encoder calls after subsampling a batch; None to call nothing.

        Args:
            cut_ids: of the batch, B.
            num_tokens: of each transcript, B.
        """
        return DropFrames(self, cut_ids, num_tokens) if self.acts_on("encoder") else None

    def _on(self) -> bool:
        return self.active and self.options.variant != "none"

    @property
    def _how(self) -> dict[str, Any]:
        variant = "chunk" if self.options.variant == "mask" else self.options.variant
        return {"drop_ratio": self.options.drop_ratio, "variant": variant, "chunk": self.chunk}


class DropFrames:
    """Drops encoder frames of a batch: ``(h (B, T', D), h_lens (B,)) -> (shorter h, h_lens)``.

    Made by `TimeDropping.frame_transform`. An encoder calls it between its subsampling and its
    layers.
    """

    def __init__(self, dropping: TimeDropping, cut_ids: Sequence[str], num_tokens: Sequence[int]):
        self.dropping = dropping
        self.cut_ids = cut_ids
        self.num_tokens = num_tokens

    def __call__(self, h: Tensor, h_lens: Tensor) -> tuple[Tensor, Tensor]:
        keeps = [
            self.dropping.plan(*utterance).keep
            for utterance in zip(h_lens.tolist(), self.cut_ids, self.num_tokens, strict=True)
        ]
        return drop_encoder_frames(h, h_lens, keeps)
