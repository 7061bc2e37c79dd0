"""Load a model for decoding from a model file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.data.tokenizer import Tokenizer
from asrprune.decoding.pathways import Pathways
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.model_file import masks_of, model_of
from asrprune.training.own_weights import own_weights_of
from asrprune.transducer.model import Transducer

KEYS = ("model", "config", "vocab_size", "tokenizer_digest")


def load_model(
    path: str | Path, device: torch.device | str, tokenizer: Tokenizer | None = None
) -> tuple[Transducer, Config]:
    """Return the model of an ``averaged.pt`` for decoding, and the configuration of its training.

    For a gradually pruned model, the mask is applied. For a supernet, the dense network with all
    weights is returned. For pathways, the model without any mask is returned (see `load_pathways`).

    Args:
        path: the model file.
        device: the device for the model, which is in evaluation mode.
        tokenizer: the tokenizer that the model must have been trained with; None: any.

    Raises:
        UserError: the file is missing, damaged, or of another type; or the model was trained with
            another tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; the average stage (6) makes it")
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise UserError(
            f"{path} is damaged, no model file, or one of another version of asrprune; the average "
            "stage (6) makes it anew"
        ) from error
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise UserError(
            f"{path} is no model file of the average stage (6): no {missing[0]!r} in it"
        )
    if tokenizer is not None and tokenizer.digest != content["tokenizer_digest"]:
        raise UserError(
            f"{path} was trained with another tokenizer than the one in --lang-dir: its token ids "
            "would mean other words. Give the --lang-dir of the training"
        )
    model, config = model_of(content, path)
    return model.to(device).eval(), config


def load_pathways(path: str | Path, model: Transducer, config: Config) -> Pathways | None:
    """Return the pathways of a model that `load_model` has loaded; None if it has no pathways.

    Raises:
        UserError: the pathways belong to another model.
    """
    return pathways_of(load_checkpoint(Path(path)), model, config)


def pathways_of(content: Mapping[str, Any], model: Transducer, config: Config) -> Pathways | None:
    """Return the pathways of the model of a file's content; None if the model has no pathways.

    Raises:
        UserError: the pathways belong to another model.
    """
    masks = masks_of(content)
    if not masks or config.weight_pruning.method != "pathways":
        return None
    bank = make_bank(model, config.weight_pruning, masks)
    return Pathways(bank, model, own_weights_of(content))
