"""Read the file of a trained model: an average, a checkpoint or a sub-network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.config import Config, config_from_dict
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.low_rank import merged_state
from asrprune.transducer.model import Transducer, build_model


def description(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that every file of these weights has: configuration and tokenizer."""
    return {key: content[key] for key in ("config", "vocab_size", "tokenizer_digest", "symbols")}


def read_model_file(path: Path, option: str) -> dict[str, Any]:
    """Return the content of a model file that an option names.

    Args:
        path: the file.
        option: the option, for messages.

    Raises:
        UserError: the file is missing, damaged or no model.
    """
    if not path.is_file():
        raise UserError(f"{option}={path}: there is no such file. Name another place")
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise UserError(
            f"{option}={path} is damaged, or no model of this version of asrprune; take an "
            "averaged.pt, epoch-N.pt or checkpoint-N.pt"
        ) from error
    for key in ("model", "config", "vocab_size", "tokenizer_digest", "symbols"):
        if key not in content:
            raise UserError(f"{option}={path} is no model: no {key!r} in it. Name a model")
    return content


def masks_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the masks of a model file or a checkpoint; None if the model has no masks."""
    return content.get("masks") or content.get("masking")


def model_of(content: Mapping[str, Any], path: Path) -> tuple[Transducer, Config]:
    """Return the model of a file's content, and the configuration of its training.

    A model that was pruned gradually has its mask applied: its masked weights are zeros. Of a
    supernet, the dense network with all weights is returned. Of pathways, the model without any
    mask is returned.

    Args:
        content: the content of the file.
        path: the file, for messages.

    Raises:
        UserError: the weights do not fit the configuration, or the masks do not fit the weights.
    """
    config = config_from_dict(content["config"])
    model = build_model(config.model, config.loss, content["vocab_size"])
    try:
        model.load_state_dict(merged_state(content["model"]))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: its weights do not fit its config: {reason}") from error
    masks = masks_of(content)
    if masks and config.weight_pruning.method == "gradual":  # the only sub-network of the file
        masked = make_bank(model, config.weight_pruning, masks).masked(masks["sparsity"])
        model.load_state_dict(masked, strict=False)
    return model, config
