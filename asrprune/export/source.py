"""Open a model file with its masks, to take sub-networks out of it."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asrprune.base.errors import UserError
from asrprune.config import Config, override
from asrprune.data.tokenizer import Tokenizer
from asrprune.decoding.load import load_model
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.low_rank import merged_state
from asrprune.training.model_file import masks_of, model_of
from asrprune.training.own_weights import of_language, own_weights_of
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.options import Block

SPARSEST = 0.996  # the last level that keeps a unit, for models that were trained without masks


@dataclass(frozen=True)
class Source:
    """Hold a model to take sub-networks out of."""

    path: Path
    model: Transducer
    config: Config
    content: dict[str, Any]  # the content of the model file
    bank: MaskBank
    trained: bool  # whether the masks are the masks of the model's training

    @property
    def sparsest(self) -> float:
        """Return the highest sparsity that a sub-network may have."""
        if self.trained:
            return masks_of(self.content)["sparsity"]
        return sparsest_untrained(self.bank.block)

    @property
    def single(self) -> bool:
        """Return whether the model was pruned gradually, and so has a single sparsity."""
        return self.trained and self.config.weight_pruning.method == "gradual"

    @property
    def device(self) -> torch.device:
        """Return the device of the model."""
        return self.model.feature_mean.device

    @cached_property
    def digest(self) -> str:
        """Return a digest of weights, configuration and masks.

        Models of equal digests have equal sub-networks.
        """
        code = hashlib.blake2b(json.dumps(self.content["config"]).encode(), digest_size=16)
        own = {
            f"{language} {name}": value
            for language, one in own_weights_of(self.content).items()
            for name, value in one["values"].items()
        }
        for name, value in (*self.content["model"].items(), *own.items()):
            code.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            code.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
        code.update(self.bank.digest().encode())
        return code.hexdigest()

    def of(self, language: str) -> "Source":
        """Return the source with the own weights and the tokenizer of a language, if it has any.

        See `asrprune.training.own_weights`.
        """
        if language not in own_weights_of(self.content):
            return self
        content = of_language(self.content, language)
        model, config = model_of(content, self.path)
        bank = make_bank(model, config.weight_pruning, masks_of(content))
        return Source(self.path, model.to(self.device).eval(), config, content, bank, True)


def open_source(
    path: Path,
    words: list[str],
    device: torch.device | str = "cpu",
    tokenizer: Tokenizer | None = None,
) -> Source:
    """Read a model file and its masks, or make masks by its weights.

    Args:
        path: the model file.
        words: overrides of the options of weight pruning, for a model without masks.
        device: the device for the model.
        tokenizer: the tokenizer that the model must have been trained with; None: any.

    Raises:
        UserError: see `load_model` and `make_bank`; or there are overrides for a model with masks.
    """
    model, config = load_model(path, "cpu", tokenizer)
    content = load_checkpoint(path)
    content["model"] = merged_state(content["model"])
    strange = [word for word in words if not word.startswith("weight_pruning.")]
    if strange:
        raise UserError(f"{strange[0]}: only overrides of weight_pruning.* are possible here")
    masks = masks_of(content)
    if masks and words:
        raise UserError(f"{path} has the masks of its training: leave out {' '.join(words)}")
    config = override(config, words)
    # the bank ranks the weights on the CPU, so the ranking does not depend on the device
    bank = make_bank(model, config.weight_pruning, masks)
    return Source(path, model.to(device), config, content, bank, bool(masks))


def sparsest_untrained(block: Block) -> float:
    """Return the highest sparsity of a sub-network of a model that was trained without masks."""
    return min(SPARSEST, block.sparsity or SPARSEST)
