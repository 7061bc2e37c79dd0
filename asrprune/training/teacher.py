"""Load a trained model as a fixed teacher for knowledge distillation.

The teacher's targets are its encoder's scores of symbols at each frame, as in
`asrprune.training.distillation`. The teacher may have another encoder than the model that learns.
"""

from pathlib import Path

import torch

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.training.distributed import Ranks
from asrprune.training.model_file import masks_of, model_of, read_model_file
from asrprune.training.pruning import check_can_drop
from asrprune.transducer.model import Transducer

_KEY = "training.teacher"
_LONGEST = 4000  # output lengths are compared for utterances below this many feature frames (40 s)


def load_teacher(
    config: Config, model: Transducer, tokenizer_digest: str, ranks: Ranks
) -> Transducer | None:
    """Return the model of ``training.teacher`` in evaluation mode; None if there is none.

    Args:
        config: the configuration of the training.
        model: the model that learns.
        tokenizer_digest: the digest of the tokenizer of the model that learns.
        ranks: the processes that train together.

    Raises:
        UserError: see `check_teacher`; or the teacher has another tokenizer.
    """
    if not config.training.teacher:
        return None
    content = read_model_file(Path(config.training.teacher), _KEY)
    if content["tokenizer_digest"] != tokenizer_digest:
        raise UserError(
            f"{_KEY}={config.training.teacher} was trained with another tokenizer, so its scores "
            "are of other symbols. Train the teacher with the tokenizer of this training"
        )
    return check_teacher(config, model).to(ranks.device).eval().requires_grad_(False)


def check_teacher(config: Config, model: Transducer) -> Transducer:
    """Return the model of ``training.teacher`` if a model can learn from it.

    The tokenizer is not checked.

    Args:
        config: the configuration of the training.
        model: the model that learns.

    Raises:
        UserError: the file is missing, damaged or no model; or the teacher has a network for each
            language, other features, or other frames, or cannot drop the frames that the training
            drops.
    """
    path = Path(config.training.teacher)
    content = read_model_file(path, _KEY)
    method = content["config"].get("weight_pruning", {}).get("method")
    if masks_of(content) and method == "pathways":
        raise UserError(
            f"{_KEY}={path} has a network for each language: take one out (asrprune extract "
            "--language), and name its file"
        )
    try:
        with torch.random.fork_rng(devices=[]):  # the initial random weights are not used
            teacher, _ = model_of(content, path)
    except UserError as error:
        raise UserError(f"{_KEY}={path}: {error}") from error
    bins, own_bins = teacher.feature_mean.numel(), model.feature_mean.numel()
    if bins != own_bins:
        raise UserError(
            f"{_KEY}={path} takes {bins} mel bins, and this model takes {own_bins}. Name a teacher "
            "with the same features"
        )
    frames = torch.arange(1, _LONGEST)
    if not torch.equal(*(one.encoder.output_lengths(frames) for one in (teacher, model))):
        raise UserError(
            f"{_KEY}={path}: its encoder has other numbers of frames than this model's, so frames "
            "cannot be compared. Name a teacher with the same subsampling"
        )
    if config.data_pruning.time.variant != "none":
        check_can_drop(teacher.encoder, f"the encoder of {_KEY}={path}", config.data_pruning.time)
    return teacher
