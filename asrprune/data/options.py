"""Options of the training data (standard library only)."""

from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.base.options import REBATCH, RESUMABLE, option


@dataclass
class SpecAugmentOptions:
    """Masking and warping of the features (Park et al. 2019), through lhotse's implementation."""

    probability: float = option(0.9, minimum=0, maximum=1)  # share of utterances; 0 turns it off
    time_warp: int = option(80, minimum=0)  # frames; 0 turns the warping off
    feature_masks: int = option(2, minimum=0)
    feature_mask_size: int = option(27, minimum=1)  # mel bins, at most
    frame_masks: int = option(10, minimum=0)
    frame_mask_size: int = option(100, minimum=1)  # frames, at most
    frame_mask_share: float = option(0.15, minimum=0, maximum=1)  # of an utterance, at most


@dataclass
class NoiseOptions:
    """Background noise mixed into the features, as icefall's recipes do with musan."""

    cuts: str = ""  # a cut manifest with features; empty: no noise
    probability: float = option(0.5, minimum=0, maximum=1)
    snr_low: float = 10.0  # dB
    snr_high: float = 20.0

    def check(self, prefix: str) -> None:
        """Check that the range of signal-to-noise ratios is not empty.

        Args:
            prefix: the text before an option's name in messages, such as ``data.noise.``.

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
    """Which cuts make up the batches, and what is done to them."""

    corpus: str = ""  # prefix of the manifests, as in <corpus>_cuts_train.jsonl.gz
    dev: list[str] = option(factory=list, change=RESUMABLE)  # sets whose loss is watched
    max_duration: float = option(200.0, change=REBATCH, minimum=0.1)  # seconds a batch, per rank
    max_cuts: int = option(0, change=REBATCH, minimum=0)  # cuts a batch; 0: no limit
    lazy: bool = option(False, change=REBATCH)  # read the manifest as a stream (large corpora)
    buffer_size: int = option(20000, change=REBATCH, minimum=1)  # cuts the sampler shuffles among
    languages: list[str] = option(factory=list)  # train on the cuts of these only; none: of all
    # monolingual: a step's batches, on all ranks, are of one language
    batches: str = option("mixed", choices=("mixed", "monolingual"))
    # of a language's share of the audio, for its share of the steps, if monolingual
    language_exponent: float = option(0.6, minimum=0, maximum=1)
    num_workers: int = option(2, change=RESUMABLE, minimum=0)
    spec_augment: SpecAugmentOptions = option(factory=SpecAugmentOptions)
    noise: NoiseOptions = option(factory=NoiseOptions)
