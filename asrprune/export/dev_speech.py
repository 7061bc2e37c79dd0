"""Hold speech of development sets in memory, to decode it many times with exported networks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse import CutSet, Fbank, FbankConfig
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.data.audio import FEATURES
from asrprune.data.batches import language_of, open_cuts, part_of, transcript
from asrprune.data.features import load_features
from asrprune.data.tokenizer import Tokenizer, normalise
from asrprune.export.onnx_decoder import OnnxDecoder
from asrprune.scoring.wer import count_errors

FRAMES_A_SECOND = 100


@dataclass(frozen=True)
class DevSpeech:
    """Hold utterances, each with the silence that follows it in a stream."""

    sets: list[str]  # names of the development sets
    features: list[np.ndarray]  # features (frames, 80) of each utterance
    references: list[list[str]]  # reference words of each utterance
    tokenizer: Tokenizer

    @property
    def words(self) -> int:
        """Return the number of reference words."""
        return sum(len(words) for words in self.references)

    def errors(self, decoder: OnnxDecoder, what: str) -> np.ndarray:
        """Return the word errors of networks in each utterance (utterances,).

        Args:
            decoder: the networks.
            what: the networks' name on the progress bar.
        """
        pairs = zip(self.features, self.references, strict=True)
        counts = []
        for features, words in tqdm(pairs, what, len(self.features), leave=False, disable=None):
            tokens = decoder.search(decoder.encode(features)).tokens
            counts.append(count_errors(words, self.tokenizer.decode(tokens).split()).errors)
        return np.array(counts)

    def part(self, seconds: float) -> list[np.ndarray]:
        """Return features of about so many seconds, from utterances spread evenly over the sets."""
        frames = sum(len(features) for features in self.features)
        return self.features[:: max(1, round(frames / FRAMES_A_SECOND / seconds))]


@dataclass(frozen=True)
class DevSets:
    """Hold the development sets on which int8 is compared with float32."""

    names: list[str]
    cuts: CutSet
    seconds: float  # seconds of speech that are decoded for a network
    max_loss: float  # share of float32's errors that int8 may add
    tokenizer: Tokenizer

    def speech(self, language: str | None, tail: float) -> DevSpeech | None:
        """Read the stored features of utterances.

        Args:
            language: take only cuts of this language; None: all cuts.
            tail: seconds of silence after each utterance.

        Returns:
            The speech; None if no cut is of the language.

        Raises:
            UserError: features cannot be read.
        """
        cuts = self.cuts
        if language is not None:
            cuts = cuts.filter(lambda cut: language_of(cut) == language).to_eager()
        if not len(cuts):
            return None
        cuts, silence = part_of(cuts, self.seconds), _silence(tail)
        return DevSpeech(
            self.names,
            [np.concatenate((load_features(cut).numpy(), silence)) for cut in cuts],
            [normalise(transcript(cut)).split() for cut in cuts],
            self.tokenizer,
        )


def open_dev_sets(manifest_dir: Path, corpus: str, names: Sequence[str]) -> CutSet:
    """Open the validated cuts of development sets, one set after the other.

    Raises:
        UserError: a set is missing, or has no cuts.
    """
    found = CutSet.from_cuts([])
    for name in dict.fromkeys(names):
        cuts = open_cuts(manifest_dir, corpus, name)
        if not len(cuts):
            raise UserError(f"--dev-sets {name}: the set has no cuts. Leave the set out")
        found += cuts
    return found.to_eager()


def _silence(seconds: float) -> np.ndarray:
    """Return features (frames, 80) of digital silence."""
    config = FbankConfig(**FEATURES)
    frames = round(seconds * FRAMES_A_SECOND)
    one = Fbank(config).extract(np.zeros(config.sampling_rate, np.float32), config.sampling_rate)
    return np.repeat(one[:1], frames, axis=0).astype(np.float32)
