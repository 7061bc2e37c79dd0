"""Augment features, with random draws that are keyed by (seed, epoch, cut id).

The draws do not depend on workers, on ranks, or on where a training was resumed.
"""

import torch
from lhotse import CutSet
from lhotse.cut import Cut, MonoCut
from lhotse.dataset import SpecAugment

from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_global_generators, keyed_random
from asrprune.data.options import NoiseOptions, SpecAugmentOptions


class KeyedSpecAugment:
    """Apply lhotse's SpecAugment to one utterance at a time."""

    def __init__(self, options: SpecAugmentOptions, seed: int):
        self.seed = seed
        masks = {
            "num_frame_masks": options.frame_masks,
            "frames_mask_size": options.frame_mask_size,
            "max_frames_mask_fraction": options.frame_mask_share,
        }
        # lhotse draws sizes below the given size, so size 1 masks nothing. lhotse fails if no frame
        # may be masked.
        none = {"num_frame_masks": 1, "frames_mask_size": 1, "max_frames_mask_fraction": 1.0}
        some = options.frame_masks and options.frame_mask_share
        self.shortest = 1 / options.frame_mask_share if some else 0.0
        self.transform, self.without_frame_masks = (
            SpecAugment(
                time_warp_factor=options.time_warp or None,
                num_feature_masks=options.feature_masks,
                features_mask_size=options.feature_mask_size,
                p=options.probability,
                **kind,
            )
            for kind in (masks if some else none, none)
        )

    def __call__(self, features: torch.Tensor, epoch: int, cut_id: str) -> torch.Tensor:
        """Apply SpecAugment to the features (T, F) of one cut. The shape stays the same."""
        short = len(features) < self.shortest
        transform = self.without_frame_masks if short else self.transform
        with keyed_global_generators("spec-augment", self.seed, epoch, cut_id):
            return transform(features.unsqueeze(0)).squeeze(0)


class KeyedNoise:
    """Mix a random stretch of a noise recording into a cut, at a random signal-to-noise ratio."""

    def __init__(self, options: NoiseOptions, seed: int):
        self.options = options
        self.seed = seed
        try:
            cuts = CutSet.from_file(options.cuts)  # None for an empty manifest
        except FileNotFoundError as error:
            raise UserError(
                f"data.noise.cuts={options.cuts} does not exist; the features stage makes it "
                "with --musan true"
            ) from error
        self.cuts = [] if cuts is None else list(cuts)
        if not self.cuts:
            raise UserError(f"data.noise.cuts={options.cuts} holds no cuts")

    def __call__(self, cut: Cut, epoch: int) -> Cut:
        """Return a cut, with or without noise in it.

        Raises:
            UserError: The noise has another sampling rate or number of mel bins than the cut.
        """
        draw = keyed_random("noise", self.seed, epoch, cut.id)
        if draw.random() >= self.options.probability:
            return cut
        noise: MonoCut = draw.choice(self.cuts)
        spare = noise.duration - cut.duration
        if spare > 0:
            start = draw.uniform(0, spare)
            noise = noise.truncate(offset=start, duration=cut.duration, preserve_id=True)
        offset = draw.uniform(0, max(0.0, -spare))
        snr = draw.uniform(self.options.snr_low, self.options.snr_high)
        try:
            # the mix keeps the cut's id, because losses are reported under this id
            return cut.mix(noise, offset_other_by=offset, snr=snr, preserve_id="left")
        except AssertionError as error:  # another sampling rate or number of mel bins
            raise UserError(
                f"{noise.id} of data.noise.cuts={self.options.cuts} cannot be mixed into cut "
                f"{cut.id}: {error} Make both with the features stage (2)"
            ) from error
