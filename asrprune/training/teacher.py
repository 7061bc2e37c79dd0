"""A trained model that teaches another one: knowledge distillation from a fixed teacher.

The teacher's targets are its encoder's scores of symbols at each frame, as in
`asrprune.training.distillation`. The teacher may have another encoder than the model that learns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asrprune.config import Config
from asrprune.errors import UserError
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.model_file import model_of
from asrprune.transducer.model import Transducer

_KEY = "training.teacher"


def load_teacher(
    config: Config, model: Transducer, tokenizer_digest: str, ranks: Ranks
) -> Transducer | None:
    """Return the model of ``training.teacher`` in evaluation mode; None if there is none.

    Args:
        config: the configuration of the training.
        model: the model that learns.
        tokenizer_digest: the digest of its tokenizer.
        ranks: the processes that train together.

    Raises:
        UserError: the file is missing, damaged or no model; the model has a network for each
            language, another tokenizer, other features, or other frames.
    """
    if not config.training.teacher:
        return None
    path = Path(config.training.teacher)
    content = _read(path)
    if content["config"].get("weight_pruning", {}).get("method") == "pathways":
        raise UserError(
            f"{_KEY}={path} has a network for each language: take one out (asrprune extract "
            "--language)"
        )
    if content["tokenizer_digest"] != tokenizer_digest:
        raise UserError(
            f"{_KEY}={path} was trained with another tokenizer, so its scores are of other symbols"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # the weights that it is made with are not used
            teacher, _ = model_of(content, path)
    except UserError as error:
        raise UserError(f"{_KEY}={path}: {error}") from error
    for what, theirs, own in (
        ("mel bins", teacher.feature_mean.numel(), model.feature_mean.numel()),
        ("frames a step", teacher.encoder.subsampling, model.encoder.subsampling),
    ):
        if theirs != own:
            raise UserError(f"{_KEY}={path} has {theirs} {what}, and this model has {own}")
    return teacher.to(ranks.device).eval().requires_grad_(False)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"{_KEY}={path}: there is no such file")
    try:
        content = load_checkpoint(path)
    except UserError as error:
        raise UserError(
            f"{_KEY}={path} is damaged, or no model of this version of asrprune: take an "
            "averaged.pt"
        ) from error
    for key in ("model", "config", "vocab_size", "tokenizer_digest"):
        if key not in content:
            raise UserError(f"{_KEY}={path} is no model: no {key!r} in it")
    return content
