"""Rivals of time dropping to compare with: masking without shortening, and faster speech."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from asrprune.data_pruning.drop_plan import check_share


def mask_frames(features: Tensor, keep: Tensor) -> Tensor:
    """Overwrite the frames that a plan would drop with each feature's mean over the utterance.

    Masking regularises as dropping does, and saves nothing.

    Args:
        features: (T, F) of one utterance.
        keep: (T,) bool of `plan_drop`.
    """
    return torch.where(keep.unsqueeze(1), features, features.mean(dim=0))


def equal_speed(drop_ratio: float) -> float:
    """Return the factor of a speed perturbation that saves as much as dropping ``drop_ratio``.

    Raises:
        UserError: ``drop_ratio`` is not at least 0 and below 1.
    """
    check_share(drop_ratio)
    return 1 / (1 - drop_ratio)


def speed_up(samples: Tensor, drop_ratio: float, hop: int = 160, least: int = 1) -> Tensor:
    """Play all of the audio faster by the factor `equal_speed`. The pitch rises too.

    The result is the same at every visit. The share that stays is rounded up to a hundredth, which
    keeps the resampling filter short. At least ``least`` frames stay.

    Args:
        samples: (..., T) raw audio, float.
        drop_ratio: share of the duration to save, 0 <= drop_ratio < 1.
        hop: samples of a frame shift.
        least: feature frames that must stay.

    Raises:
        UserError: ``drop_ratio`` is not at least 0 and below 1.
    """
    frames = (samples.size(-1) + hop // 2) // hop
    ratio = Fraction(int(speed_hundredths(drop_ratio, frames, least)), 100)
    if ratio == 1:
        return samples
    from torchaudio.functional import resample  # a broken torchaudio must not break the rest

    return resample(samples, orig_freq=ratio.denominator, new_freq=ratio.numerator)


def speed_hundredths(
    drop_ratio: float, lengths: np.ndarray | int, least: np.ndarray | int = 1
) -> np.ndarray:
    """Return the share of N sequences that `speed_up` leaves, in hundredths; (N,) int64, 1 to 100.

    Raises:
        UserError: ``drop_ratio`` is not at least 0 and below 1.
    """
    share = np.maximum(1 / equal_speed(drop_ratio), least / np.maximum(lengths, 1e-9))
    hundredths = np.ceil(100 * share - 1e-9)  # 7 of 0.07, although 100 * 0.07 is above 7 in floats
    return np.minimum(hundredths, 100).astype(np.int64)


def speed_left(
    drop_ratio: float, lengths: np.ndarray | int, least: np.ndarray | int = 1
) -> np.ndarray:
    """Return how many frames are left of each of N faster sequences, (N,) int64; at least 1."""
    hundredths = speed_hundredths(drop_ratio, lengths, least)
    return np.maximum(-(-np.asarray(lengths) * hundredths // 100), 1)


def fit_to_frames(samples: Tensor, frames: int, hop: int) -> Tensor:
    """Cut or zero-pad ``samples`` (..., T), so that they give ``frames`` feature frames.

    Faster speech changes by less than a frame, because its length follows the number of samples.
    """
    shortest = max(frames * hop - hop // 2, 0)
    if samples.size(-1) < shortest:
        return torch.nn.functional.pad(samples, (0, shortest - samples.size(-1)))
    return samples[..., : shortest + hop - 1]
