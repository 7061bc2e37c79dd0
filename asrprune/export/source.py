"""A model file with its masks: what sub-networks are taken out of."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asrprune.config import Config, override
from asrprune.corpus.tokenizer import Tokenizer
from asrprune.decoding.load import load_model
from asrprune.errors import UserError
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.model_file import masks_of
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.options import Block

SPARSEST = 0.996  # of what was trained without masks: the last level that keeps anything


@dataclass(frozen=True)
class Source:
    """A model to take sub-networks out of."""

    path: Path
    model: Transducer
    config: Config
    content: dict[str, Any]  # of its file
    bank: MaskBank
    trained: bool  # its masks are those of its training

    @property
    def sparsest(self) -> float:
        """The sparsity that no sub-network is above."""
        if self.trained:
            return masks_of(self.content)["sparsity"]
        return sparsest_untrained(self.bank.block)

    @property
    def single(self) -> bool:
        """Whether it is one network, pruned gradually, and has no other sizes."""
        return self.trained and self.config.weight_pruning.method == "gradual"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.feature_mean.device

    @cached_property
    def digest(self) -> str:
        """Of the weights, the config and the masks: the same sub-networks come of equal ones."""
        code = hashlib.blake2b(json.dumps(self.content["config"]).encode(), digest_size=16)
        for name, value in self.content["model"].items():
            code.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            code.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
        code.update(self.bank.digest().encode())
        return code.hexdigest()


def open_source(
    path: Path,
    words: list[str],
    device: torch.device | str = "cpu",
    tokenizer: Tokenizer | None = None,
) -> Source:
    """Read a model file and its masks, or make these of its weights.

    Args:
        words: changes to the options of weight pruning, where it has no masks.

    Raises:
        UserError: as of `load_model` and `make_bank`; words for a model with masks.
    """
    model, config = load_model(path, "cpu", tokenizer)
    content = load_checkpoint(path)
    strange = [word for word in words if not word.startswith("weight_pruning.")]
    if strange:
        raise UserError(f"{strange[0]}: only words weight_pruning.* change what is taken out")
    masks = masks_of(content)
    if masks and words:
        raise UserError(f"{path} has the masks of its training: leave out {' '.join(words)}")
    config = override(config, words)
    # on the CPU: the same ranks whatever the device
    bank = make_bank(model, config.weight_pruning, masks)
    return Source(path, model.to(device), config, content, bank, bool(masks))


def sparsest_untrained(block: Block) -> float:
    """The sparsity that no sub-network is above of what was trained without masks."""
    return min(SPARSEST, block.sparsity or SPARSEST)
