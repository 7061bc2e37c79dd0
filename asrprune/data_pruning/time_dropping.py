"""Drop random parts of an utterance, so that its sequence gets shorter (time dropping).

This is the time-wise half of DDP-ASR (arXiv 2406.18373). Single frames (*points*) or *chunks* are
dropped, and the rest is joined. The transcript stays. `plan_drop` decides which frames are dropped,
by a random key. Adapters apply its plan to raw samples, feature frames or encoder frames.
`TimeDropping` binds the adapters to the options, and switches all of them on or off.
`asrprune.data_pruning.time_batches` applies time dropping to batches of lhotse's own dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asrprune.base.options import check
from asrprune.data_pruning.drop_plan import Drop, lengths_left, plan_drop
from asrprune.data_pruning.encoder_frames import EncoderFrames
from asrprune.data_pruning.ids import hash_id
from asrprune.data_pruning.index import CutIndex, chunks
from asrprune.data_pruning.options import TimeDroppingOptions


def frames_of(num_samples: int, hop: int) -> int:
    """Return the feature frames of samples with a frame shift of ``hop`` samples, as in lhotse."""
    return (num_samples + hop // 2) // hop


def drop_samples(samples: Tensor, keep: Tensor, hop: int) -> Tensor:
    """Return ``samples`` (..., T) without the samples of dropped frames.

    A frame has ``hop`` samples. The last frame has all samples that remain. The features of the
    result then have as many frames as the plan keeps.

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
    """Drop frames of a batch, with a plan for each utterance. The operation is differentiable.

    Args:
        h: (B, T', D) frames, such as those after subsampling; T' may exceed the longest length.
        h_lens: (B,) int64, the lengths.
        keeps: B plans of `plan_drop`, (h_lens[b],) bool each, on the CPU.
        padding: value of the frames past the lengths left.

    Returns:
        The frames left (B, longest length left, D), and the lengths left (B,).
    """
    kept = [keep.nonzero().squeeze(1) for keep in keeps]
    left = torch.tensor([len(frames) for frames in kept])
    frames = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True)
    past = torch.arange(frames.size(1)) >= left.unsqueeze(1)
    frames, past = frames.to(h.device).unsqueeze(2), past.to(h.device).unsqueeze(2)
    # past its length a sequence repeats frame 0; the mask keeps gradients of the padding from it
    h = h.gather(1, frames.expand(-1, -1, h.size(2))).masked_fill(past, padding)
    return h, left.to(h_lens)


def share_left(left: np.ndarray | int, whole: np.ndarray | int) -> np.ndarray:
    """Return the share that is left of N sequences, (N,) float64; 1 for an empty sequence."""
    return np.where(np.equal(whole, 0), 1.0, np.minimum(left / np.maximum(whole, 1), 1))


class TimeDropping:
    """Drops time as the options ask for. The draws are keyed by (seed, cycle, cut id).

    ``active`` is the switch. It is off until the trainer turns it on, for the cycles of
    `PruningSampler.drops_time`. Evaluation never turns it on, and therefore never drops time.
    ``cycle`` here is the number of the pass over the data, which is the epoch. Every visit then has
    a new draw, also if a cycle of data pruning has several epochs. Both are read at each call.
    Loader workers get both with the pickled object, so set them before the workers of an epoch
    start.

    There are four adapters: `samples`, `frames`, `frame_transform` and `drop_from_batch`. Only the
    adapters of the options' ``level`` do anything. Frames are the feature frames that the model
    sees, or encoder frames for the level ``encoder``. If the number of tokens of a cut is given,
    enough frames stay for one encoder frame per token. At least one encoder frame stays.
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
            options: what is dropped, how much, and at which level.
            seed: seed of all draws.
            subsampling: feature frames per encoder frame.
            output_lengths: the encoder's own function from feature frames (N,) to encoder frames
                (N,). None: the encoder frames are ``ceil(feature frames / subsampling)``.
            frame_shift: seconds from one feature frame to the next.

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
        """Return whether time is dropped now at ``level``."""
        return self._on() and self.options.level == level

    @property
    def mean_share_left(self) -> float:
        """The mean share of the audio that the options leave while time dropping is active."""
        return 1.0 if self.options.variant == "none" else 1 - self.options.drop_ratio

    def least(self, num_tokens: np.ndarray | int) -> np.ndarray:
        """Return how many frames must stay of cuts with ``num_tokens`` tokens, (N,) int64.

        The frames are encoder frames for the level ``encoder``, and feature frames otherwise.
        """
        encoder_frames = np.maximum(num_tokens, 1)
        if self.options.level == "encoder":
            return encoder_frames
        return self.encoder.needed(encoder_frames)

    def plan(self, length: int, cut_id: str, num_tokens: int = 0) -> Drop:
        """Return the plan of a cut in this cycle. The plan keeps all frames while inactive.

        Args:
            length: feature frames, or encoder frames for the level ``encoder``.
            cut_id: id of the cut.
            num_tokens: number of tokens of its transcript.
        """
        if not self._on():
            return Drop(torch.ones(length, dtype=torch.bool), False)
        key = (self.seed, self.cycle, cut_id)
        return plan_drop(length, key=key, least=int(self.least(num_tokens)), **self._how)

    def length_left(self, length: int, cut_id: str, num_tokens: int = 0) -> int:
        """Return the length that the adapters leave of a cut; ``length`` while inactive.

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
        if not self._on():
            return lengths
        least = self.least(np.asarray(num_tokens))
        key = (self.seed, self.cycle)
        return lengths_left(lengths, key=key, cut_hash=cut_hash, least=least, **self._how)

    def seconds_left(self, index: CutIndex) -> np.ndarray:
        """Return the seconds that are left of each cut of an index in this cycle, (N,) float32.

        A sampler fills batches by these seconds. They are exact for the cuts of the index, if the
        index has the token counts that the adapters get. A copy that is made on the fly (such as
        ``_sp0.9``, ``_dup0`` or ``_pass1``) has an id of its own, and therefore its own draw. For
        such a copy the seconds are those of its original cut, with the same mean.
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
            samples: (..., T) raw audio of one cut.
            hop: samples of a frame shift.
            cut_id: id of the cut.
            num_tokens: number of tokens of its transcript.

        Returns:
            The samples left, and whether the number of tokens limited the drop.
        """
        if not self.acts_on("samples"):
            return samples, False
        keep, clamped = self.plan(frames_of(samples.size(-1), hop), cut_id, num_tokens)
        return drop_samples(samples, keep, hop), clamped

    def frames(self, features: Tensor, cut_id: str, num_tokens: int = 0) -> tuple[Tensor, bool]:
        """Drop feature frames, before SpecAugment.

        SpecAugment's masks then fit the length that the model sees.

        Args:
            features: (T, F) features of one cut.
            cut_id: id of the cut.
            num_tokens: number of tokens of its transcript.

        Returns:
            The features (frames left, F), and whether the number of tokens limited the drop.
        """
        if not self.acts_on("frames"):
            return features, False
        keep, clamped = self.plan(len(features), cut_id, num_tokens)
        return drop_frames(features, keep), clamped

    def frame_transform(
        self, cut_ids: Sequence[str], num_tokens: Sequence[int]
    ) -> DropFrames | None:
        """Return the function that an encoder calls after subsampling a batch.

        The result is None while no encoder frames are dropped.

        Args:
            cut_ids: (B,) ids of the batch's cuts.
            num_tokens: (B,) tokens of the transcripts.
        """
        return DropFrames(self, cut_ids, num_tokens) if self.acts_on("encoder") else None

    def _on(self) -> bool:
        return self.active and self.options.variant != "none"

    @property
    def _how(self) -> dict[str, Any]:
        options = self.options
        return {"drop_ratio": options.drop_ratio, "variant": options.variant, "chunk": self.chunk}


class DropFrames:
    """Drops encoder frames of a batch: ``(h (B, T', D), h_lens (B,)) -> (shorter h, h_lens)``.

    `TimeDropping.frame_transform` makes this function. An encoder calls it between its subsampling
    and its layers.
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
