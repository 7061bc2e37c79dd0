"""Connect data pruning to a training: the sampler, time dropping, and the feedback of scores."""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.lazy import LazyManifestIterator
from torch import nn

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.data.batches import SpeechDataset, language_of
from asrprune.data_pruning.ids import hash_id
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.monolingual import LanguageSchedule
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.sampler import PruningSampler
from asrprune.data_pruning.time_dropping import TimeDropping
from asrprune.data_pruning.token_counts import CountTokens
from asrprune.training.distributed import Ranks

SIZES = 12  # number of classes of sub-networks (`Masking.loss_class`) in each language


@dataclasses.dataclass
class TrainingData:
    """Hold the data of a training."""

    sampler: PruningSampler  # without pruning, it keeps all cuts and still collects scores
    dataset: SpeechDataset
    seconds: float  # duration of the audio of the whole training set
    dev: dict[str, CutSet]

    @cached_property
    def dev_languages(self) -> dict[str, str | None]:
        """Return the language of each development set; None: several languages, or none."""
        return {name: _language_of_all(cuts) for name, cuts in self.dev.items()}

    @property
    def languages(self) -> list[str]:
        """Return the languages that have their own batches; none if batches are mixed."""
        return self.sampler.turns.names if self.sampler.turns else []

    def language(self, epoch: int, batches: int) -> str | None:
        """Return the language of a step; None if batches are mixed.

        Args:
            epoch: the epoch of the step.
            batches: number of batches of the epoch before the step.
        """
        if not (turns := self.sampler.turns):
            return None
        return turns.names[turns.language(epoch, batches // turns.accumulate)]

    @property
    def epoch_seconds(self) -> float:
        """Return the seconds of audio of the present epoch before time dropping, over all ranks."""
        return self.seconds * self.sampler.plan.report["seconds"]

    def start_epoch(self, epoch: int) -> None:
        """Plan the cycle of an epoch, and set whether time is dropped in it. Collective."""
        self.sampler.set_epoch(epoch)
        if self.dataset.dropping:
            self.dataset.dropping.active = self.sampler.drops_time
            self.dataset.dropping.cycle = epoch


@dataclasses.dataclass
class TrainingStats:
    """Count totals over all ranks since the start of a training, without steps that were undone."""

    cuts: int = 0  # visits of cuts
    seconds: float = 0.0  # audio before time dropping
    seconds_left: float = 0.0  # audio after time dropping
    frames: int = 0  # feature frames in batches
    padded_frames: int = 0  # feature frames in batches, with padding
    clamped: int = 0  # visits of cuts that are too short for their share of time dropping
    passes: int = 0  # forward and backward passes; a micro-batch has one for each sub-network
    teacher_passes: int = 0  # forward passes only, whose outputs a sub-network learns from


class ScoreFeedback:
    """Give the sampler the scores of a batch's cuts, after the backward pass."""

    def __init__(self, sampler: PruningSampler, dropping: TimeDropping | None, encoder: nn.Module):
        """Prepare the feedback of scores.

        Args:
            sampler: the sampler that gets the scores.
            dropping: time dropping of the training; None: no time is dropped.
            encoder: the encoder of the model.
        """
        self.sampler = sampler
        self.score = sampler.options.score
        self.dropping = dropping
        self.encoder = encoder
        self._errors = torch.zeros(0)  # (B,): summed errors of the last batch's cuts

    @property
    def on_logits(self) -> Callable[[torch.Tensor], None] | None:
        """Return the function to call with the logits of the pruned loss; None if there is none."""
        return self._watch if self.score == "el2n" else None

    def _watch(self, logits: torch.Tensor) -> None:
        """Remember the errors of the joiner's outputs, which the backward pass computes.

        The errors give EL2N (Paul et al. 2021, arXiv 2107.07075): the norm of softmax minus target
        at the nodes of the pruned lattice. Each node is weighted by its occupation. The sums (B,)
        are over the nodes of a cut.
        """

        def remember(gradient: torch.Tensor) -> None:
            self._errors = gradient.float().norm(dim=-1).sum(dim=(1, 2))

        logits.register_hook(remember)

    def __call__(
        self, batch: dict[str, Any], losses: torch.Tensor, scale: float, loss_class: int = 0
    ) -> None:
        """Give the sampler the losses of a batch.

        Args:
            batch: a batch of the training set.
            losses: pruned losses (B,).
            scale: scale of the gradients of these losses, before the weights of cuts.
            loss_class: class of the sub-network that the losses belong to, below `SIZES`.
        """
        if self.sampler.turns:  # losses of different languages cannot be compared
            loss_class += SIZES * (1 + self.sampler.index.language_of(batch["cut_ids"][0]))
        more: dict[str, Any] = {"loss_class": loss_class}
        if self.score == "loss_per_frame":
            more["num_frames"] = encoder_frames(self.encoder, self.dropping, batch)
        elif self.score == "el2n":
            # the gradient of a cut's own loss, without the scale of the step
            factors = self.sampler.weights_of(batch["cut_ids"])
            errors = self._errors.cpu() / scale
            errors = errors if factors is None else errors / torch.from_numpy(factors)
            more["el2n"] = errors / (batch["token_lens"] + 1)
        self.sampler.update(batch["cut_ids"], losses, batch["token_lens"], **more)


def make_pruning_sampler(
    cuts: CutSet, duration_bins: list[float], config: Config, ranks: Ranks, dataset: SpeechDataset
) -> PruningSampler:
    """Return the sampler of a training, which draws batches from the cuts that the policy keeps.

    Epochs are counted from 1.

    Args:
        cuts: the training cuts.
        duration_bins: durations that separate the buckets.
        config: the configuration of the training.
        ranks: the processes that train together.
        dataset: the dataset, which makes batches from cuts.

    Raises:
        UserError: options do not fit each other, or do not fit the cuts.
    """
    options, data = config.data_pruning, config.data
    if data.languages:
        cuts = _of_languages(cuts, data.languages)
    count_tokens = dataset.count_tokens if dataset.dropping else None
    index = _index_of(cuts, options.share_copies, data.languages, count_tokens)
    turns = None
    if data.batches == "monolingual":
        accumulate = config.training.grad_accumulation
        turns = LanguageSchedule(index, data.language_exponent, accumulate, config.seed)
    sampler = PruningSampler(
        cuts,
        index,
        options,
        epochs=config.training.epochs,
        duration_bins=duration_bins,
        max_duration=data.max_duration,
        max_cuts=data.max_cuts or None,
        buffer_size=data.buffer_size,
        seed=config.seed,
        first_epoch=1,
        turns=turns,
        rank=ranks.rank,
        world_size=ranks.world,
    )
    if dataset.dropping:
        dropping = dataset.dropping
        sampler.drop_time(partial(dropping.seconds_left, index), dropping.mean_share_left)
    return sampler


def _language_of_all(cuts: CutSet) -> str | None:
    """Return the language of all cuts; None if there are several."""
    languages = {language_of(cut) for cut in cuts}
    return languages.pop() if len(languages) == 1 else None


def _of_languages(cuts: CutSet, languages: Sequence[str]) -> CutSet:
    """Return the cuts of some languages, lazily if the cuts are lazy."""

    def is_wanted(cut: Cut) -> bool:
        return all(segment.language in languages for segment in cut.supervisions)

    kept = cuts.filter(is_wanted)
    return kept if cuts.is_lazy else kept.to_eager()


def _index_of(
    cuts: CutSet,
    share_copies: bool,
    languages: Sequence[str] = (),
    count_tokens: CountTokens | None = None,
) -> CutIndex:
    """Build the index of the training cuts.

    A lazy manifest is read line by line, without lhotse objects.

    Args:
        cuts: the training cuts.
        share_copies: whether copies of an utterance have one score.
        languages: each needs a cut; empty: no language is checked.
        count_tokens: counts the tokens of transcripts; None: tokens are not counted.

    Returns:
        The index.

    Raises:
        UserError: there are no cuts, or no cuts of one of the languages.
    """
    if isinstance(cuts.data, LazyManifestIterator):
        return CutIndex.from_manifest(cuts.data.path, share_copies, count_tokens)
    try:
        index = CutIndex.from_cuts(cuts, share_copies, count_tokens)
    except UserError as error:
        if not languages:
            raise
        raise UserError(f"data.languages={','.join(languages)}: {error} of them") from error
    found = index.groups["language"][1] if "language" in index.groups else []
    if missing := [name for name in languages if name not in found]:
        raise UserError(f"data.languages: no training cut is of {', '.join(missing)}")
    return index


def check_can_drop(encoder: nn.Module, name: str, options: TimeDroppingOptions) -> None:
    """Check that the encoder can drop encoder frames, if the options ask for this.

    Args:
        encoder: the encoder of the model.
        name: the encoder's name, for the message.
        options: the options of time dropping.

    Raises:
        UserError: the level is ``encoder``, and the encoder cannot drop frames after its
            subsampling.
    """
    if options.level != "encoder":
        return
    if "frame_transform" not in inspect.signature(encoder.forward).parameters:
        raise UserError(
            f"data_pruning.time.level=encoder: {name} cannot drop frames after its subsampling; "
            "take level=frames"
        )


def check_has_audio(cuts: CutSet, options: TimeDroppingOptions) -> None:
    """Check that raw audio can be dropped, if the options ask for this.

    Only the first cut is checked.

    Args:
        cuts: the training cuts.
        options: the options of time dropping.

    Raises:
        UserError: the level is ``samples``, and the cut has no recording.
    """
    if options.variant == "none" or options.level != "samples":
        return
    cut = next(iter(cuts), None)
    if cut is not None and not cut.has_recording:
        raise UserError(
            f"data_pruning.time.level=samples drops raw audio, and training cut {cut.id} has no "
            "recording. Set data_pruning.time.level=frames."
        )


def encoder_frames(
    encoder: nn.Module, dropping: TimeDropping | None, batch: dict[str, Any]
) -> torch.Tensor:
    """Return the number of encoder frames (B,) in the loss of each cut of a training batch."""
    lengths = encoder.output_lengths(batch["feature_lens"])
    if not (dropping and dropping.acts_on("encoder")):
        return lengths
    hashes = np.array([hash_id(name) for name in batch["cut_ids"]], dtype=np.uint64)
    left = dropping.lengths_left(lengths.cpu().numpy(), hashes, batch["token_lens"].cpu().numpy())
    return torch.from_numpy(left)
