"""A model file to a model that decodes."""

from pathlib import Path

import torch

from asrprune.config import Config
from asrprune.corpus.tokenizer import Tokenizer
from asrprune.decoding.pathways import Pathways
from asrprune.errors import UserError
from asrprune.training.banks import make_bank
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.model_file import masks_of, model_of
from asrprune.transducer.model import Transducer

KEYS = ("model", "config", "vocab_size", "tokenizer_digest")


def load_model(
    path: str | Path, device: torch.device | str, tokenizer: Tokenizer | None = None
) -> tuple[Transducer, Config]:
    """The model of an ``averaged.pt`` in evaluation mode on ``device``, and its training's config.

    What was pruned gradually has its mask on; of a supernet it is the dense one, with all weights,
    and of pathways what these are masks over (`load_pathways`).

    Raises:
        UserError: the file is missing, damaged, or of another kind; or the model was trained with
            another tokenizer than the given one.
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
    """The pathways of a model that `load_model` has loaded; None if it has none.

    Raises:
        UserError: they are those of another model.
    """
    masks = masks_of(load_checkpoint(Path(path)))
    if not masks or config.weight_pruning.method != "pathways":
        return None
    return Pathways(make_bank(model, config.weight_pruning, masks))
