"""Classify the spoken language with a small network.

Three convolutions over the frames of an utterance are followed by statistics pooling (mean and
standard deviation over time) and a linear layer over languages. This is the structure of x-vectors
(Snyder et al. 2018, "Spoken Language Recognition using X-vectors"), but much smaller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.transducer.encoder import zero_padding

FILE_TYPE = "language classifier"
KEYS = ("languages", "num_features", "options", "weights", "about")
LEAST_VARIANCE = 1e-5  # of a channel over time; keeps the gradient of the square root finite
MAKE_IT = "Make a classifier with asrprune learn-languages"


@dataclass(frozen=True)
class ClassifierOptions:
    """Hold the sizes of a language classifier."""

    channels: int = 64  # channels of each convolution
    dropout: float = 0.1  # share of the pooled statistics that is dropped in training


class LanguageClassifier(nn.Module):
    """Score languages from the features of an utterance.

    Attributes:
        languages: the languages, in the order of the scores.
        num_features: number of mel bins.
    """

    def __init__(
        self,
        languages: Sequence[str],
        num_features: int,
        options: ClassifierOptions | None = None,
    ):
        """Make a classifier with weights drawn from torch's global generator.

        Args:
            languages: the languages to tell apart.
            num_features: number of mel bins.
            options: sizes; None: the defaults.
        """
        super().__init__()
        options = options or ClassifierOptions()
        self.languages = list(languages)
        self.num_features = num_features
        self.options = options
        channels = options.channels
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(num_features, channels, 5, stride=2, padding=2),
                nn.Conv1d(channels, channels, 3, padding=2, dilation=2),
                nn.Conv1d(channels, channels, 3, padding=4, dilation=4),
            ]
        )
        self.dropout = nn.Dropout(options.dropout)
        self.output = nn.Linear(2 * channels, len(self.languages))
        self.register_buffer("feature_std", torch.ones(num_features))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of the languages.

        The scores of an utterance do not depend on the batch or on the padding. The mean of each
        mel bin over the utterance is subtracted first, so the level and the channel of a recording
        have little effect.

        Args:
            x: log-mel features (B, T, num_features).
            lengths: frames of each utterance (B,).

        Returns:
            Logits (B, languages) float32. All utterances without frames get the same logits.
        """
        x = zero_padding(F.pad(x, (0, 0, 0, 1)), lengths)  # a batch must have at least one frame
        mean = x.sum(1) / lengths.clamp(min=1)[:, None]
        x = zero_padding((x - mean[:, None]) / self.feature_std, lengths)
        for layer in self.layers:
            x = F.relu(layer(x.transpose(1, 2))).transpose(1, 2)
            if layer.stride[0] == 2:
                lengths = (lengths + 1) // 2
            x = zero_padding(x, lengths)
        return self.output(self.dropout(pooled(x, lengths)))

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return self.feature_std.device


def pooled(x: Tensor, lengths: Tensor) -> Tensor:
    """Return mean and standard deviation over the frames of each utterance.

    Args:
        x: (B, T, C) with zeros in the padding.
        lengths: frames of each utterance (B,).

    Returns:
        (B, 2C): the means, then the standard deviations.
    """
    count = lengths.clamp(min=1)[:, None]
    mean = x.sum(1) / count
    centred = zero_padding(x - mean[:, None], lengths)
    variance = centred.square().sum(1) / count
    return torch.cat((mean, (variance + LEAST_VARIANCE).sqrt()), dim=1)


def choose(logits: Tensor, known: Sequence[str], allowed: Sequence[str]) -> list[str]:
    """Return the most probable of the allowed languages for each utterance.

    The logits of other languages are left out, because they do not change the order of the allowed
    languages. If logits are equal, the first allowed language is chosen.

    Args:
        logits: (B, languages).
        known: the languages of the logits, in their order.
        allowed: the languages that may be chosen; all are known.
    """
    columns = [list(known).index(language) for language in allowed]
    return [allowed[index] for index in logits[:, columns].argmax(1).tolist()]


def save_classifier(classifier: LanguageClassifier, path: Path, about: Mapping[str, Any]) -> None:
    """Write a classifier to a file.

    Args:
        classifier: the classifier.
        path: the file.
        about: plain values that describe the training.

    Raises:
        UserError: the disk is full or fails.
    """
    content = {
        "type": FILE_TYPE,
        "languages": classifier.languages,
        "num_features": classifier.num_features,
        "options": asdict(classifier.options),
        "weights": {name: value.cpu() for name, value in classifier.state_dict().items()},
        "about": dict(about),
    }
    save_checkpoint(content, path)


def load_classifier(
    path: str | Path,
    languages: Sequence[str],
    num_features: int,
    option: str = "decoding.language_classifier=",
) -> LanguageClassifier:
    """Return the classifier of a file, on the CPU and in evaluation mode.

    Args:
        path: the file.
        languages: the languages that the model has pathways for. The classifier must know them.
        num_features: number of mel bins of the model.
        option: the text before the path in messages.

    Raises:
        UserError: the file is missing, damaged, or not a classifier; the classifier lacks a
            language, or was trained on other features.
    """
    path = Path(path)
    where = f"{option}{path}"
    if not path.is_file():
        raise UserError(f"{where}: the file does not exist. {MAKE_IT}")
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise UserError(
            f"{where}: the file is damaged, or was not written by this version of asrprune. "
            f"{MAKE_IT}"
        ) from error
    if content.get("type") != FILE_TYPE or any(key not in content for key in KEYS):
        raise UserError(f"{where}: the file holds no language classifier. {MAKE_IT}")
    known = content["languages"]
    if missing := [language for language in languages if language not in known]:
        raise UserError(
            f"{where}: the classifier knows {', '.join(known)}. It does not know "
            f"{', '.join(missing)}, and the model has such pathways. Train a classifier on these "
            f"languages too (asrprune learn-languages), or leave {option.strip(' =')} out"
        )
    if num_features != content["num_features"]:
        raise UserError(
            f"{where}: the classifier hears {content['num_features']} mel bins, and the model "
            f"{num_features}. Train one on the model's features (asrprune learn-languages)"
        )
    try:
        options = ClassifierOptions(**content["options"])
        classifier = LanguageClassifier(known, num_features, options)
        classifier.load_state_dict(content["weights"])
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"{where}: the file is damaged: its weights do not fit its options. {MAKE_IT}"
        ) from error
    return classifier.eval().requires_grad_(False)
