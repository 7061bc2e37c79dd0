"""Train a small classifier of the spoken language.

A model with a pathway for each language then chooses the pathway by the audio: asrprune decode with
decoding.language=auto and decoding.language_classifier=FILE. The classifier learns from the stored
features of the cuts and from the language of their supervisions. It does not use texts.

A step takes random excerpts of several seconds. Each language has the same expected number of
excerpts. From time to time, the classifier is evaluated on the beginnings of the development cuts.
The classifier with the best mean accuracy over languages is kept. The same seed, cuts and number of
threads give the same weights.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_generator, keyed_global_generators
from asrprune.data.batches import language_of, open_cuts
from asrprune.data.features import load_features
from asrprune.decoding.language_classifier import (
    ClassifierOptions,
    LanguageClassifier,
    save_classifier,
)
from asrprune.decoding.options import DecodingOptions

log = logging.getLogger(__name__)

FRAMES_A_SECOND = 100
LEAST_STD = 1e-3  # minimum for a mel bin: prevents division by zero for a constant bin
EVALUATED_AT_ONCE = 64  # number of cuts


@dataclass(frozen=True)
class LearningOptions:
    """Hold the options for training a classifier."""

    steps: int = 600
    batch: int = 64  # number of excerpts in a step
    min_seconds: float = 1.5  # length of an excerpt
    max_seconds: float = 4.0
    lr: float = 2e-3
    weight_decay: float = 1e-2
    max_shift: int = 4  # maximum shift of an excerpt in mel bins: imitates other vocal tracts
    evaluate_every: int = 50  # steps
    patience: int = 6  # number of evaluations without improvement after which the training ends
    seed: int = 0


@dataclass(frozen=True)
class Speech:
    """Hold the features of cuts and their languages."""

    features: list[Tensor]  # (T, F) float32 each
    languages: list[str]

    @property
    def counts(self) -> Counter[str]:
        """Return the number of cuts of each language."""
        return Counter(self.languages)

    @property
    def num_features(self) -> int:
        """Return the number of mel bins."""
        return self.features[0].shape[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune learn-languages`` to a parser."""
    usual, sizes = LearningOptions(), ClassifierOptions()
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--corpus", required=True, help="the first word of the manifests' names")
    parser.add_argument("--train-set", default="train", help="the set to train on")
    parser.add_argument("--dev-sets", nargs="+", required=True, help="sets to choose the best by")
    parser.add_argument("--output", type=Path, required=True, help="such as exp/languages.pt")
    parser.add_argument(
        "--max-hours",
        type=float,
        default=1.0,
        help="speech of each language to train on; an hour takes 115 MB of memory",
    )
    parser.add_argument("--steps", type=int, default=usual.steps, help="maximum number of steps")
    parser.add_argument(
        "--channels", type=int, default=sizes.channels, help="channels of each convolution"
    )
    parser.add_argument(
        "--language-seconds",
        type=float,
        default=DecodingOptions().language_seconds,
        help="seconds of a development cut to classify by, as decoding.language_seconds",
    )
    parser.add_argument("--seed", type=int, default=usual.seed, help="of weights and excerpts")


def main(args: argparse.Namespace) -> None:
    """Train a classifier and write its file."""
    for name in ("max_hours", "steps", "channels", "language_seconds"):
        if not getattr(args, name) > 0:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} {getattr(args, name)}: must be above 0")
    train_cuts = open_cuts(args.manifest_dir, args.corpus, args.train_set, lazy=True)
    train = read_speech(train_cuts, args.train_set, max_seconds=3600 * args.max_hours)
    if len(train.counts) < 2:
        raise UserError(
            f"--train-set {args.train_set}: its cuts are of {len(train.counts)} language(s) "
            f"({', '.join(train.counts) or 'none is said'}), so there is nothing to tell apart. "
            "Name a set of several languages, or set language in the supervisions"
        )
    dev_cuts = (
        cut for name in args.dev_sets for cut in open_cuts(args.manifest_dir, args.corpus, name)
    )
    dev = read_speech(dev_cuts, "dev", cut_seconds=args.language_seconds)
    options = LearningOptions(steps=args.steps, seed=args.seed)
    classifier, found = learn(train, dev, options, ClassifierOptions(channels=args.channels))
    about = {
        "seconds": [options.min_seconds, options.max_seconds],
        "language_seconds": args.language_seconds,
        "step": found.step,
        "dev_accuracy": found.accuracy,
        "seed": options.seed,
    }
    save_classifier(classifier, args.output, about)
    log.info(
        "%s: hears %s, with %d parameters. After %d steps it is right in %.1f %% of the "
        "development cuts (mean over languages), by their first %g s",
        args.output,
        ", ".join(classifier.languages),
        sum(value.numel() for value in classifier.parameters()),
        found.step,
        100 * found.accuracy,
        args.language_seconds,
    )


def read_speech(
    cuts: Iterable[Cut],
    name: str,
    max_seconds: float = float("inf"),
    cut_seconds: float | None = None,
) -> Speech:
    """Read the features of cuts that have a language.

    Args:
        cuts: cuts with stored features.
        name: the name of the set, for messages.
        max_seconds: maximum seconds of speech of each language. The first cuts are taken.
        cut_seconds: seconds to read of each cut, from its beginning; None: the whole cut.

    Raises:
        UserError: features cannot be read, or differ in their number of mel bins.
    """
    features, languages, silent = [], [], 0
    seconds: Counter[str] = Counter()
    for cut in tqdm(cuts, f"{name}: features", unit="cut", disable=None):
        if not (language := language_of(cut)):
            silent += 1
            continue
        if seconds[language] >= max_seconds:
            continue
        seconds[language] += cut.duration
        if cut_seconds is not None and cut.duration > cut_seconds:
            cut = cut.truncate(duration=cut_seconds, preserve_id=True)
        frames = load_features(cut)
        if features and frames.shape[1] != features[0].shape[1]:
            raise UserError(
                f"{name}: cut {cut.id} has {frames.shape[1]} mel bins, and the cuts before it have "
                f"{features[0].shape[1]}. Make all features anew with one configuration"
            )
        if len(frames):
            features.append(frames)
            languages.append(language)
    if silent:
        log.warning("%s: left out %d cuts that say no language, or several", name, silent)
    return Speech(features, languages)


@dataclass(frozen=True)
class Best:
    """Hold the best evaluation of a training."""

    accuracy: float  # mean over languages, 0 to 1
    loss: float
    step: int

    def better_than(self, other: "Best | None") -> bool:
        """Return whether the accuracy is higher, or equal with a lower loss."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


def learn(
    train: Speech,
    dev: Speech,
    options: LearningOptions | None = None,
    sizes: ClassifierOptions | None = None,
) -> tuple[LanguageClassifier, Best]:
    """Train a classifier, and return it as it was at its best evaluation.

    Args:
        train: speech to train on.
        dev: speech to choose the best by. Languages that ``train`` lacks are left out.
        options: how to train; None: the defaults.
        sizes: sizes of the classifier; None: the defaults.

    Raises:
        UserError: there is no development speech in these languages, or it has other features.
    """
    options = options or LearningOptions()
    languages = sorted(train.counts)
    dev = _known(dev, languages, train.num_features)
    with keyed_global_generators("learn languages", options.seed):
        classifier = LanguageClassifier(languages, train.num_features, sizes)
        classifier.feature_std.copy_(_deviation(train.features))
        best = _train(classifier, train, dev, options)
    return classifier.eval().requires_grad_(False), best


def _known(speech: Speech, languages: Sequence[str], num_features: int) -> Speech:
    """Return the part of development speech in the given languages."""
    pairs = zip(speech.features, speech.languages, strict=True)
    part = [(frames, language) for frames, language in pairs if language in languages]
    if not part:
        raise UserError(
            f"--dev-sets: no cut is of a language that is trained ({', '.join(languages)}). Name "
            "the development sets of these languages"
        )
    if (bins := part[0][0].shape[1]) != num_features:
        raise UserError(
            f"--dev-sets: the cuts have {bins} mel bins, and the training cuts {num_features}. "
            "Make all features anew with one configuration"
        )
    return Speech([frames for frames, _ in part], [language for _, language in part])


def _deviation(features: Sequence[Tensor]) -> Tensor:
    """Return the standard deviation (F,) of mel bins around their means over each cut."""
    squares = sum((frames - frames.mean(0)).double().square().sum(0) for frames in features)
    frames = sum(len(frames) for frames in features)
    return (squares / frames).sqrt().clamp(min=LEAST_STD).float()


def _train(
    classifier: LanguageClassifier, train: Speech, dev: Speech, options: LearningOptions
) -> Best:
    """Train a classifier in place. At the end, it has the weights of its best evaluation."""
    optimizer = torch.optim.AdamW(
        classifier.parameters(), lr=options.lr, weight_decay=options.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    draw = Excerpts(train, classifier.languages, options)
    best, weights, since = None, {}, 0
    with tqdm(total=options.steps, desc="languages", unit="step", disable=None) as progress:
        for step in range(1, options.steps + 1):
            x, lengths, target = draw(step)
            loss = F.cross_entropy(classifier.train()(x, lengths), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            progress.update()
            if step % options.evaluate_every and step < options.steps:
                continue
            now = evaluate(classifier, dev, step)
            log.info(
                "step %d: loss %.3f; dev: loss %.3f, right %.1f %%",
                step, loss.item(), now.loss, 100 * now.accuracy,
            )  # fmt: skip
            since += 1
            if now.better_than(best):
                best, since = now, 0
                weights = {name: value.clone() for name, value in classifier.state_dict().items()}
            if since >= options.patience:
                break
    classifier.load_state_dict(weights)
    return best


class Excerpts:
    """Draw batches of random excerpts. Each language has the same probability."""

    def __init__(self, speech: Speech, languages: Sequence[str], options: LearningOptions):
        """Prepare to draw from speech.

        Args:
            speech: speech of all languages.
            languages: the languages, in the order of the targets.
            options: how to draw.
        """
        self.options = options
        self.parts = [
            [
                frames
                for frames, said in zip(speech.features, speech.languages, strict=True)
                if said == language
            ]
            for language in languages
        ]

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the batch of a step, which depends only on the seed and the step.

        All excerpts of a batch have the same length. A shorter cut is taken whole.

        Args:
            step: number of the step.

        Returns:
            Features (B, T, F) padded with zeros, lengths (B,) and indices of languages (B,).
        """
        options = self.options
        generator = keyed_generator("languages", options.seed, step)
        uniform = torch.rand(1 + 4 * options.batch, generator=generator).tolist()
        span = options.max_seconds - options.min_seconds
        length = round(FRAMES_A_SECOND * (options.min_seconds + uniform.pop() * span))
        excerpts, targets = [], []
        for _ in range(options.batch):
            target = int(uniform.pop() * len(self.parts))
            part = self.parts[target]
            frames = part[int(uniform.pop() * len(part))]
            start = int(uniform.pop() * (max(0, len(frames) - length) + 1))
            shift = round((2 * uniform.pop() - 1) * options.max_shift)
            excerpts.append(shifted(frames[start : start + length], shift))
            targets.append(target)
        lengths = torch.tensor([len(excerpt) for excerpt in excerpts])
        return pad_sequence(excerpts, batch_first=True), lengths, torch.tensor(targets)


def shifted(frames: Tensor, bins: int) -> Tensor:
    """Return frames (T, F) shifted along the mel bins. The outermost bin fills the free bins."""
    count = frames.shape[1]
    return frames[:, (torch.arange(count) - bins).clamp(0, count - 1)]


@torch.no_grad()
def evaluate(classifier: LanguageClassifier, speech: Speech, step: int = 0) -> Best:
    """Return accuracy and loss of a classifier, as means over languages.

    Args:
        classifier: the classifier; it is in evaluation mode afterwards.
        speech: speech of languages that the classifier knows.
        step: the step, for the result.
    """
    classifier.eval()
    order = sorted(range(len(speech.features)), key=lambda index: len(speech.features[index]))
    targets = torch.tensor([classifier.languages.index(name) for name in speech.languages])[order]
    logits = []
    for start in range(0, len(order), EVALUATED_AT_ONCE):
        batch = [speech.features[index] for index in order[start : start + EVALUATED_AT_ONCE]]
        lengths = torch.tensor([len(frames) for frames in batch])
        logits.append(classifier(pad_sequence(batch, batch_first=True), lengths))
    scores = torch.cat(logits)
    weight = 1 / targets.bincount(minlength=len(classifier.languages))[targets]
    weight = weight / weight.sum()
    right = (scores.argmax(1) == targets).float()
    losses = F.cross_entropy(scores, targets, reduction="none")
    return Best(float((right * weight).sum()), float((losses * weight).sum()), step)
