"""Holds a fixed part of a development set in memory, to measure the loss and the WER of models."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.base.randomness import keyed_global_generators
from asrprune.config import Config
from asrprune.data.batches import alignable, dev_loader, open_cuts, part_of, transcript
from asrprune.data.statistics import CutStatistics
from asrprune.data.tokenizer import Tokenizer, normalise
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.search import recognize
from asrprune.scoring.wer import count_errors, total
from asrprune.transducer.model import Transducer


@dataclass(frozen=True)
class DevSet:
    """Batches on the model's device, from the shortest cuts to the longest."""

    name: str
    batches: list[dict[str, Any]]  # see `asrprune.data.batches.SpeechDataset`
    references: dict[str, list[str]]  # cut id -> reference words
    tokens: int  # number of tokens, plus one for each utterance
    seconds: float
    digest: str  # hash of ids, durations and texts
    tokenizer: Tokenizer
    decoding: DecodingOptions

    def loss(self, model: Transducer) -> float:
        """Return the pruned loss per token. Each utterance adds one token, as in training."""
        names = ("features", "feature_lens", "tokens", "token_lens")
        losses = []
        for batch in self.batches:
            with torch.no_grad(), keyed_global_generators("validation", batch["cut_ids"][0]):
                losses.append(model(*(batch[name] for name in names)).pruned.double().sum())
        return torch.stack(losses).sum().item() / self.tokens

    def error_rate(self, model: Transducer) -> float:
        """Return the word error rate of greedy search on whole utterances (not streaming)."""
        errors = []
        for batch in self.batches:
            found = recognize(
                model,
                batch["features"],
                batch["feature_lens"],
                self.decoding,
                self.tokenizer.unk_id,
            )
            for cut_id, hypothesis in zip(batch["cut_ids"], found, strict=True):
                words = self.tokenizer.decode(hypothesis.tokens).split()
                errors.append(count_errors(self.references[cut_id], words))
        return total(errors).rate


def load_dev_set(
    manifest_dir: Path,
    name: str,
    max_seconds: float | None,
    model: Transducer,
    config: Config,
    tokenizer: Tokenizer,
) -> DevSet:
    """Read the features of a set, or of a fixed part of it (`part_of`).

    Cuts with more tokens than encoder frames are left out, as in training.

    Args:
        manifest_dir: the folder of the validated cuts (stage 3).
        name: the name of the set.
        max_seconds: the most seconds of speech; None: the whole set.
        model: the model; batches go to its device.
        config: the configuration of the model.
        tokenizer: the tokenizer of the model.

    Raises:
        UserError: there is no such set; no cut of it is left; or features cannot be read.
    """
    cuts = open_cuts(manifest_dir, config.data.corpus, name)
    cuts = alignable(cuts, tokenizer, model.encoder.output_lengths)
    cuts = part_of(cuts, max_seconds)
    if not len(cuts):
        raise UserError(f"the set {name} has no cuts to measure the loss on")
    statistics, references = CutStatistics(), {}
    for cut in cuts:
        text = normalise(transcript(cut))
        statistics.add(cut.id, cut.duration, text, "")
        references[cut.id] = text.split()
    device, batches, tokens = model.feature_mean.device, [], 0
    with tqdm(total=len(cuts), desc=f"reading {name}", unit="cut", disable=None) as bar:
        for batch in dev_loader(cuts, tokenizer, config.data, 0, 1):
            tokens += int((batch["token_lens"] + 1).sum())
            batches.append(
                {
                    key: value.to(device) if isinstance(value, torch.Tensor) else value
                    for key, value in batch.items()
                }
            )
            bar.update(len(batch["cut_ids"]))
    return DevSet(
        name,
        batches,
        references,
        tokens,
        sum(statistics.durations),
        statistics.digest(),
        tokenizer,
        dataclasses.replace(config.decoding, method="greedy_search", streaming=False),
    )
