"""Make batches of noise for measurements of speed without a corpus."""

import dataclasses

import torch
from lhotse import CutSet, MonoCut

from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_generator
from asrprune.config import Config
from asrprune.data.batches import Batch, SpeechDataset
from asrprune.data.tokenizer import SPECIAL, CharacterTokenizer
from asrprune.data_pruning.options import DataPruningOptions
from asrprune.training.distributed import Ranks
from asrprune.training.pruning import TrainingData, make_pruning_sampler

VOCABULARY = 500
SHORTEST, LONGEST = 2.0, 16.0  # seconds of a cut
TOKENS_PER_SECOND = 3
_FRAMES_PER_SECOND = 100


def generated_batches(config: Config, ranks: Ranks, count: int) -> tuple[TrainingData, list[Batch]]:
    """Return data for a trainer, and batches of noise as `SpeechDataset` makes them.

    All cuts of a batch have the same duration, which is drawn for each batch. They fill
    ``data.max_duration``. The features (B, T, F) have mean 0 and standard deviation 1. Data pruning
    is turned off, because noise has no useful scores.

    Args:
        config: the configuration of the training.
        ranks: the processes that train together.
        count: number of batches.
    """
    config = dataclasses.replace(config, data_pruning=DataPruningOptions())
    random = keyed_generator("generated batches", config.seed)
    cuts: list[MonoCut] = []
    batches = []
    for _ in range(count):
        seconds = SHORTEST + (LONGEST - SHORTEST) * torch.rand((), generator=random).item()
        frames = int(min(seconds, config.data.max_duration) * _FRAMES_PER_SECOND)
        seconds = frames / _FRAMES_PER_SECOND
        size = max(1, int(config.data.max_duration / seconds))
        symbols = int(TOKENS_PER_SECOND * seconds)
        names = [f"cut-{number}" for number in range(len(cuts), len(cuts) + size)]
        cuts += [MonoCut(name, 0.0, seconds, 0) for name in names]
        batches.append(
            {
                "features": torch.randn(size, frames, config.model.num_features, generator=random),
                "feature_lens": torch.full((size,), frames),
                "tokens": torch.randint(
                    len(SPECIAL), VOCABULARY, (size, symbols), generator=random
                ),
                "token_lens": torch.full((size,), symbols),
                "cut_ids": names,
                "seconds": size * seconds,
                "seconds_left": size * seconds,
                "clamped": 0,
            }
        )
    tokenizer = CharacterTokenizer([*SPECIAL, *map(str, range(len(SPECIAL), VOCABULARY))], "")
    dataset = SpeechDataset(tokenizer)
    bins = [(SHORTEST + LONGEST) / 2]
    sampler = make_pruning_sampler(CutSet.from_cuts(cuts), bins, config, ranks, dataset)
    return TrainingData(sampler, dataset, sum(cut.duration for cut in cuts), {}), batches


def refuse_teacher(config: Config) -> None:
    """Check that a configuration has no teacher, whose passes are not measured.

    Raises:
        UserError: ``training.teacher`` is set.
    """
    if config.training.teacher:
        raise UserError(
            f"training.teacher={config.training.teacher}: a benchmark does not measure the passes "
            "of a teacher. Leave the teacher out"
        )
