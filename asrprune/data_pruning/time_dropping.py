"""Time dropping: a keyed random part of an utterance is cut out, and the sequence gets shorter.

The time-wise half of DDP-ASR (arXiv 2406.18373): single frames (*points*), one *span*, or *chunks*
go and the rest is joined; the transcript stays. `plan_drop` decides, `length_left` foretells the
length, and three adapters apply the plan to raw samples, feature frames or encoder frames.
`TimeDropping` binds them to the options and holds the one switch. Rivals for comparison stand at
the end: masking without shortening, and faster speech of equal saving.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.errors import UserError, nearest
from asrprune.options import check
from asrprune.randomness import keyed_generator

KINDS = ("chunk", "span", "point")


class Drop(NamedTuple):
    """What is left of a sequence: ``keep`` (length,) bool, and whether ``least`` lowered rho."""

    keep: Tensor
    clamped: bool


class _Counts(NamedTuple):
    size: int  # frames of a piece
    units: int  # the sequence cut into pieces; the last may be partial
    dropped: int  # pieces that go
    tail: bool  # whether the last piece is one of them
    left: int  # frames that stay
    clamped: bool


def plan_drop(
    length: int,
    rho: float,
    key: Sequence[int | str],
    *,
    kind: str = "chunk",
    chunk: int = 20,
    least: int = 1,
) -> Drop:
    """Draw which frames of a sequence stay; a pure function of its arguments.

    The sequence is cut into M pieces, of ``chunk`` frames for the kind ``chunk`` (the last may be
    partial) and of one frame otherwise. ``rho * M`` of them go, the fraction rounded up with its
    own probability, so that ``rho`` is the expected share where nothing is clamped. They are drawn
    without replacement; the kind ``span`` takes them in one stretch.

    Args:
        length: frames of the sequence.
        rho: share of frames that goes, 0 <= rho < 1.
        key: what the draw belongs to, such as ``(seed, cycle, cut id)``.
        kind: ``chunk``, ``span`` or ``point``.
        chunk: frames of a piece, for the kind ``chunk``.
        least: frames that must stay, such as one encoder frame for each token; at least 1. Fewer
            pieces go if as many whole ones would leave less.

    Raises:
        UserError: ``rho``, ``kind`` or ``chunk`` out of its limits.
    """
    draw, place, counts = _draw(length, rho, key, kind, chunk, least)
    units, dropped = counts.units, counts.dropped
    keep = torch.ones(units, dtype=torch.bool)
    if kind == "span":
        start = int(place * (units - dropped + 1))
        keep[start : start + dropped] = False
    elif dropped:
        # the last piece was decided on already; the others are alike
        keep[-1] = not counts.tail
        keep[torch.randperm(units - 1, generator=draw)[: dropped - counts.tail]] = False
    return Drop(keep.repeat_interleave(counts.size)[:length], counts.clamped)


def length_left(
    length: int,
    rho: float,
    key: Sequence[int | str],
    *,
    kind: str = "chunk",
    chunk: int = 20,
    least: int = 1,
) -> int:
    """How many frames `plan_drop` leaves for the same arguments, without drawing which.

    Raises:
        UserError: as `plan_drop`.
    """
    return _draw(length, rho, key, kind, chunk, least)[2].left


def _draw(
    length: int, rho: float, key: Sequence[int | str], kind: str, chunk: int, least: int
) -> tuple[torch.Generator, float, _Counts]:
    """What decides the length left; the generator then draws which of equal pieces go.

    :raises UserError: an argument out of its limits.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind}: choose one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    _check_share(rho)
    if chunk < 1:
        raise UserError(f"chunk={chunk}: must be at least 1 frame")
    if length < 0:
        raise UserError(f"length={length}: must not be negative")
    draw = keyed_generator("time-dropping", *key)
    coin, place = torch.rand(2, dtype=torch.float64, generator=draw).tolist()
    size = min(chunk, max(1, length)) if kind == "chunk" else 1
    return draw, place, _counts(length, rho, size, least, coin, place)


def _counts(length: int, rho: float, size: int, least: int, coin: float, place: float) -> _Counts:
    """The length left from two uniform numbers in [0, 1).

    ``coin`` rounds the number of pieces. ``place`` says whether the last one goes, with the
    probability that a draw without replacement gives it: it may be partial.
    """
    units = -(-length // size)
    dropped = int(rho * units)
    dropped += coin < rho * units - dropped
    most = max(0, length - max(1, least)) // size
    clamped = dropped > most
    dropped = min(dropped, most)
    tail = place * units < dropped
    left = length - dropped * size + (units * size - length if tail else 0)
    return _Counts(size, units, dropped, tail, left, clamped)


def _check_share(rho: float) -> None:
    """:raises UserError: ``rho`` is no share, or all."""
    if not 0 <= rho < 1:
        raise UserError(f"rho={rho}: must be at least 0 and below 1")


def frames_of(num_samples: int, hop: int) -> int:
    """Feature frames of ``num_samples`` samples with a frame shift of ``hop``, as lhotse counts."""
    return (num_samples + hop // 2) // hop


def drop_samples(samples: Tensor, keep: Tensor, hop: int) -> Tensor:
    """``samples`` (..., T) without those of the frames that go.

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
    """``features`` (T, F) and ``keep`` (T,) bool of `plan_drop` -> (frames left, F)."""
    return features[keep]


def drop_encoder_frames(
    h: Tensor, h_lens: Tensor, keeps: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Frames of a batch, each utterance by a plan of its own; differentiable.

    Args:
        h: (B, T', D) frames after subsampling; T' may exceed the longest length.
        h_lens: (B,) int64.
        keeps: B plans of `plan_drop`, (h_lens[b],) bool each, on the CPU.

    Returns:
        (B, longest length left, D) with zeros past the lengths, and (B,) the lengths left.
    """
    kept = [keep.nonzero().squeeze(1) for keep in keeps]
    left = torch.tensor([len(frames) for frames in kept])
    frames = torch.nn.utils.rnn.pad_sequence(kept, batch_first=True)
    padding = torch.arange(frames.size(1)) >= left.unsqueeze(1)
    frames, padding = frames.to(h.device).unsqueeze(2), padding.to(h.device).unsqueeze(2)
    # padding repeats frame 0, and masking it gives that frame no gradient
    h = h.gather(1, frames.expand(-1, -1, h.size(2))).masked_fill(padding, 0.0)
    return h, left.to(h_lens)


class TimeDropping:
    """Time dropping as the options ask for it, keyed by (seed, cycle, cut id).

    ``active`` is the one switch. It is off until the trainer turns it on, for the cycles between
    warm-up and the anneal tail; evaluation never does, and so never drops. ``cycle`` is the number
    of the pass over the data, for a fresh draw at every visit. Both are read at each call; loader
    workers get them with the pickled object, so they are set before an epoch's workers start.

    Of the three adapters `samples`, `frames` and `frame_transform` only that of the options'
    ``place`` does anything, so that all may stand in the code. ``least`` is the number of frames
    that must stay: feature frames, or encoder frames for the place ``encoder``.
    """

    def __init__(self, options: TimeDroppingOptions, seed: int, subsampling: int = 1):
        """``subsampling``: feature frames per encoder frame, for the place ``encoder``.

        :raises UserError: an option out of its limits.
        """
        check(options, "data_pruning.time.")
        self.options = options
        self.seed = seed
        self.active = False
        self.cycle = 0
        # the option counts feature frames wherever the frames are dropped
        shrink = subsampling if options.place == "encoder" else 1
        self.chunk = max(1, round(options.chunk / shrink))

    def acts_on(self, place: str) -> bool:
        """Whether frames are dropped now, and at this place."""
        return self._on() and self.options.place == place

    def plan(self, length: int, cut_id: str, least: int = 1) -> Drop:
        """The plan of this cut in this cycle; keeps all while inactive.

        For the kind ``mask`` it says what is not overwritten; ``speed`` has none.
        """
        if not self._on():
            return Drop(torch.ones(length, dtype=torch.bool), False)
        return plan_drop(length, **self._arguments(cut_id, least))

    def length_left(self, length: int, cut_id: str, least: int = 1) -> int:
        """The length that `plan` leaves; ``length`` while inactive. For batching.

        Lengths are feature frames, or encoder frames for the place ``encoder``; of the kind
        ``speed`` to a frame.
        """
        if not self._on() or self.options.kind == "mask":
            return length
        if self.options.kind == "speed":
            return max(1, math.ceil(length * float(speed_ratio(self.options.rho, length, least))))
        return length_left(length, **self._arguments(cut_id, least))

    def samples(
        self, samples: Tensor, hop: int, cut_id: str, least: int = 1
    ) -> tuple[Tensor, bool]:
        """Raw audio (..., T), ``hop`` samples a frame -> what is left of it, whether clamped.

        Before features are computed; ``least`` counts feature frames.
        """
        if not self.acts_on("samples"):
            return samples, False
        if self.options.kind == "speed":
            length = frames_of(samples.size(-1), hop)
            clamped = speed_ratio(self.options.rho, length, least) > speed_ratio(
                self.options.rho, length
            )
            return speed_up(samples, self.options.rho, hop, least), clamped
        keep, clamped = self.plan(frames_of(samples.size(-1), hop), cut_id, least)
        return drop_samples(samples, keep, hop), clamped

    def frames(self, features: Tensor, cut_id: str, least: int = 1) -> tuple[Tensor, bool]:
        """Features (T, F) of one utterance -> (frames left, F), whether clamped.

        Before SpecAugment, whose masks are then of the length that the model sees.
        """
        if not self.acts_on("frames"):
            return features, False
        keep, clamped = self.plan(len(features), cut_id, least)
        if self.options.kind == "mask":
            return mask_frames(features, keep), clamped
        return drop_frames(features, keep), clamped

    def frame_transform(self, cut_ids: Sequence[str], least: Sequence[int]) -> DropFrames | None:
        """What an encoder calls after subsampling a batch of these cuts; None to call nothing.

        ``least``: encoder frames that must stay, such as the number of tokens of each cut.
        """
        return DropFrames(self, cut_ids, least) if self.acts_on("encoder") else None

    def _on(self) -> bool:
        return self.active and self.options.kind != "none"

    def _arguments(self, cut_id: str, least: int) -> dict[str, Any]:
        return {
            "rho": self.options.rho,
            "key": (self.seed, self.cycle, cut_id),
            "kind": "chunk" if self.options.kind == "mask" else self.options.kind,
            "chunk": self.chunk,
            "least": least,
        }


class DropFrames:
    """Drop encoder frames of one batch: ``(h (B, T', D), h_lens (B,)) -> (shorter h, h_lens)``.

    Made by `TimeDropping.frame_transform`; to be called between subsampling and the encoder's
    layers.
    """

    def __init__(self, dropping: TimeDropping, cut_ids: Sequence[str], least: Sequence[int]):
        self.dropping = dropping
        self.cut_ids = cut_ids
        self.least = least

    def __call__(self, h: Tensor, h_lens: Tensor) -> tuple[Tensor, Tensor]:
        keeps = [
            self.dropping.plan(*utterance).keep
            for utterance in zip(h_lens.tolist(), self.cut_ids, self.least, strict=True)
        ]
        return drop_encoder_frames(h, h_lens, keeps)


def mask_frames(features: Tensor, keep: Tensor) -> Tensor:
    """A rival that regularises alike and saves nothing: the frames of a plan masked, not dropped.

    They become each bin's mean over the utterance.

    Args:
        features: (T, F) of one utterance.
        keep: (T,) bool of `plan_drop`.
    """
    return torch.where(keep.unsqueeze(1), features, features.mean(dim=0))


def equal_speed(rho: float) -> float:
    """The factor of a speed perturbation that saves as much as dropping the share ``rho``.

    :raises UserError: ``rho`` is no share.
    """
    _check_share(rho)
    return 1 / (1 - rho)


def speed_up(samples: Tensor, rho: float, hop: int = 160, least: int = 1) -> Tensor:
    """A rival of equal saving: all of the audio, faster by `equal_speed`; the pitch rises too.

    The same at every visit. The share that stays is rounded up to a hundredth, which keeps the
    resampling filter short, and is so large that ``least`` frames stay.

    Args:
        samples: (..., T) raw audio, float.
        rho: share of the duration that goes, 0 <= rho < 1.
        hop: samples of a frame shift.
        least: feature frames that must stay.

    Raises:
        UserError: ``rho`` is no share.
    """
    ratio = speed_ratio(rho, samples.size(-1) / hop, least)
    if ratio == 1:
        return samples
    from torchaudio.functional import resample  # a broken torchaudio must not break the room

    return resample(samples, orig_freq=ratio.denominator, new_freq=ratio.numerator)


def speed_ratio(rho: float, length: float, least: int = 1) -> Fraction:
    """The share of ``length`` frames that `speed_up` leaves, in hundredths; 1 at most."""
    share = max(1 / equal_speed(rho), least / max(1e-9, length))
    hundredths = math.ceil(100 * share - 1e-9)  # of 0.07, which is a little more in floats: 7
    return Fraction(min(hundredths, 100), 100)
