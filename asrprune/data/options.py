"""Options of the training data (standard library only)."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import REBATCH, RESUMABLE, option


@dataclass
class SpecAugmentOptions:
    """SpecAugment (Park et al. 2019) as implemented in lhotse: masking and warping of features."""

    probability: float = option(0.9, minimum=0, maximum=1)  # share of utterances; 0: off
    time_warp: int = option(80, minimum=0)  # frames; 0: no warping
    feature_masks: int = option(2, minimum=0)
    feature_mask_size: int = option(27, minimum=1)  # maximum, mel bins
    frame_masks: int = option(10, minimum=0)
    frame_mask_size: int = option(100, minimum=1)  # maximum, frames
    frame_mask_share: float = option(0.15, minimum=0, maximum=1)  # maximum share of an utterance


@dataclass
class NoiseOptions:
    """Background noise that is mixed into the features, as icefall's recipes do with musan."""

    cuts: str = ""  # a cut manifest with features; empty: no noise
    probability: float = option(0.5, minimum=0, maximum=1)
    snr_low: float = 10.0  # dB
    snr_high: float = 20.0

    def check(self, prefix: str) -> None:
        """Check that the range of signal-to-noise ratios is not empty.

        Args:
            prefix: The text before an option's name in messages, such as ``data.noise.``.

        Raises:
            UserError: ``snr_low`` is above ``snr_high``.
        """
        if not self.snr_low <= self.snr_high:
            raise UserError(
                f"{prefix}snr_low={self.snr_low}: must not be above "
                f"{prefix}snr_high={self.snr_high}"
            )


@dataclass
class DataOptions:
    """Options of the training data: the cuts, their batches and their augmentation."""

    corpus: str = ""  # prefix of the manifests, as in <corpus>_cuts_train.jsonl.gz
    dev: list[str] = option(factory=list, change=RESUMABLE)  # sets whose loss is computed
    max_duration: float = option(200.0, change=REBATCH, minimum=0.1)  # seconds per batch and rank
    max_cuts: int = option(0, change=REBATCH, minimum=0)  # cuts per batch; 0: no limit
    lazy: bool = option(False, change=REBATCH)  # read the manifest as a stream (large corpora)
    buffer_size: int = option(20000, change=REBATCH, minimum=1)  # cuts in the shuffle buffer
    languages: list[str] = option(factory=list)  # languages to train on; none given: all
    # monolingual: all batches of a step, on all ranks, have the same language
    batches: str = option("mixed", choices=("mixed", "monolingual"))
    # monolingual: steps of a language are proportional to (its share of the audio) ** this
    language_exponent: float = option(0.6, minimum=0, maximum=1)
    num_workers: int = option(2, change=RESUMABLE, minimum=0)
    spec_augment: SpecAugmentOptions = option(factory=SpecAugmentOptions)
    noise: NoiseOptions = option(factory=NoiseOptions)
