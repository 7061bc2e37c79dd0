"""What the file of a trained model says of it: an average, a checkpoint or a sub-network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asrprune.config import Config, config_from_dict
from asrprune.errors import UserError
from asrprune.training.banks import make_bank
from asrprune.transducer.model import Transducer, build_model


def description(content: Mapping[str, Any]) -> dict[str, Any]:
    """What stays with the weights from file to file: their config and tokenizer.

    ``symbols`` is None of files that were written when none knew its symbols.
    """
    about = {key: content[key] for key in ("config", "vocab_size", "tokenizer_digest")}
    return {**about, "symbols": content.get("symbols")}


def masks_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The masks of a model file, or of a checkpoint; None if it was trained without."""
    return content.get("masks") or content.get("masking")


def model_of(content: Mapping[str, Any], path: Path) -> tuple[Transducer, Config]:
    """The model of a file's content, and its training's config.

    What was pruned gradually has its mask on: the masked weights are zeros. A supernet is the dense
    one, with all weights, and pathways are what these are masks over.

    Raises:
        UserError: the weights do not fit the config, or the masks the weights.
    """
    config = config_from_dict(content["config"])
    model = build_model(config.model, config.loss, content["vocab_size"])
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: its weights do not fit its config: {reason}") from error
    masks = masks_of(content)
    if masks and config.weight_pruning.method == "gradual":  # it is one network, a sparse one
        masked = make_bank(model, config.weight_pruning, masks).masked(masks["sparsity"])
        model.load_state_dict(masked, strict=False)
    return model, config
