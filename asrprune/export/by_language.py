"""Recognise speech with exported networks of several languages. The audio chooses the network."""

from pathlib import Path

import numpy as np
import torch
from lhotse import Fbank, FbankConfig
from lhotse.augmentation import Resample

from asrprune.base.errors import UserError
from asrprune.data.audio import FEATURES
from asrprune.decoding.language_classifier import choose, load_classifier
from asrprune.export.sherpa import RATE, Recogniser, padded, read_summary


class RecogniserByLanguage:
    """Hold the networks of a model's pathways in sherpa-onnx, and a classifier of languages.

    A network is loaded when its language is first chosen.
    """

    def __init__(
        self,
        folder: Path,
        classifier: Path,
        seconds: float,
        int8: bool = False,
        threads: int = 1,
    ):
        """Open the networks of a folder and a classifier.

        Args:
            folder: a folder that ``asrprune export`` wrote, with a network for each language.
            classifier: the file of ``asrprune learn-languages``.
            seconds: number of first seconds of an utterance that the classifier takes.
            int8: whether to take the int8 files.
            threads: number of CPU threads of a network.

        Raises:
            UserError: the folder has no exported networks of languages; or the classifier does not
                fit (`load_classifier`).
        """
        networks = read_summary(folder)["networks"]
        self.languages = [name for name, about in networks.items() if about.get("choice") == name]
        if not self.languages:
            raise UserError(
                f"--network {folder}: it has no networks of languages, only {', '.join(networks)}. "
                "Leave --language-classifier out and name one of these, or export a model with "
                "pathways"
            )
        self.classifier = load_classifier(
            classifier, self.languages, FEATURES["num_filters"], option="--language-classifier "
        )
        self._folder, self._seconds = folder, seconds
        self._more = (int8, threads)
        self._loaded: dict[str, Recogniser] = {}

    def language_of(self, samples: np.ndarray, rate: int) -> str:
        """Return the most probable language of an utterance, by its first seconds.

        Args:
            samples: samples (n,) float32 in [-1, 1].
            rate: the sampling rate in Hz.
        """
        first = padded(samples[: round(self._seconds * rate)], rate, 0.0)
        if rate != RATE:
            first = Resample(rate, RATE)(first[None], rate)[0]
        frames = Fbank(FbankConfig(**FEATURES)).extract(np.asarray(first), RATE)
        x = torch.from_numpy(frames)[None]
        logits = self.classifier(x, torch.tensor([x.shape[1]]))
        return choose(logits, self.classifier.languages, self.languages)[0]

    def recogniser(self, language: str) -> Recogniser:
        """Return the network of a language.

        Raises:
            UserError: files of the network are missing (`Recogniser`).
        """
        if language not in self._loaded:
            self._loaded[language] = Recogniser(self._folder / language, *self._more)
        return self._loaded[language]
