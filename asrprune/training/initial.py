"""Start a training from a trained model of the same shape."""

import logging
from pathlib import Path

from torch import nn

from asrprune.errors import UserError
from asrprune.training.checkpoint import load_checkpoint

log = logging.getLogger(__name__)


def load_initial(model: nn.Module, path: str | Path, tokenizer_digest: str) -> None:
    """Give a model the weights of a model file, or of a checkpoint, and its feature statistics.

    :raises UserError: the file is missing or damaged, of another tokenizer or of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"training.init_from={path}: there is no such file")
    content = load_checkpoint(path)
    if content.get("tokenizer_digest") != tokenizer_digest:
        raise UserError(
            f"training.init_from={path} was trained with another tokenizer than the one in "
            "--lang-dir, or is no model: its symbols would mean others. Give that training's "
            "tokenizer (run.sh: --bpe-model)"
        )
    own, theirs = model.state_dict(), content["model"]
    for name in [*own, *theirs]:
        if name not in own or name not in theirs or own[name].shape != theirs[name].shape:
            there, here = (
                f"of shape {tuple(state[name].shape)}" if name in state else "none"
                for state in (theirs, own)
            )
            raise UserError(
                f"training.init_from={path} is of another shape: {name} is {there} there and "
                f"{here} here; take the model options of that training"
            )
    model.load_state_dict(theirs)
    log.info("starting from %s", path)
