"""Make the masks that a configuration asks for, and check that its options go together."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.data_pruning.options import UNSCORED_POLICIES
from asrprune.training.distributed import Ranks
from asrprune.training.masking import Masking
from asrprune.training.pathways import PathwaysMasking
from asrprune.training.supernets import SupernetMasking, mixes_sizes


def check_joined(config: Config) -> None:
    """Check that the options of weight pruning go together with the options of the data.

    Raises:
        UserError: data pruning would compare losses of sub-networks of different sizes; pathways
            would be trained on mixed batches; there are two teachers; or ``training.init_from`` is
            not the model whose weights are protected.
    """
    if config.weight_pruning.method == "pathways" and config.data.batches != "monolingual":
        raise UserError(
            "weight_pruning.method=pathways trains one language a step: set "
            "data.batches=monolingual"
        )
    if config.training.teacher and config.weight_pruning.supernet.distillation.scale:
        raise UserError(
            f"training.teacher={config.training.teacher} and "
            "weight_pruning.supernet.distillation.scale: a network learns from one teacher. Leave "
            "one of them out"
        )
    pathways, start = config.weight_pruning.pathways, config.training.init_from
    protect = config.weight_pruning.method == "pathways" and pathways.protect
    if protect and Path(pathways.masks) != Path(start):
        raise UserError(
            f"weight_pruning.pathways.protect=true: training.init_from={start} must be the model "
            f"of weight_pruning.pathways.masks={pathways.masks}, whose weights are protected"
        )
    data = config.data_pruning
    if data.detrend or data.policy in UNSCORED_POLICIES or not mixes_sizes(config.weight_pruning):
        return
    raise UserError(
        f"data_pruning.detrend=false: policy {data.policy} would compare losses of a supernet's "
        "sub-networks of all sizes. Set data_pruning.detrend=true, which divides each loss by the "
        "usual loss of its size. Or set weight_pruning.supernet.sampling=sandwich: then the "
        "losses of the dense network are compared"
    )


def make_masking(
    model: nn.Module,
    optimizer: Optimizer,
    config: Config,
    ranks: Ranks,
    languages: Sequence[str] = (),
) -> Masking | None:
    """Return the masks that the configuration asks for; None if no weights are pruned.

    Args:
        model: the network to prune.
        optimizer: the optimiser of the model.
        config: the configuration of the training.
        ranks: the processes that train together.
        languages: the languages that have batches of their own.

    Raises:
        UserError: see `Masking` and `check_joined`.
    """
    if config.weight_pruning.method == "none":
        return None
    check_joined(config)
    if config.weight_pruning.method == "pathways":
        return PathwaysMasking(model, optimizer, config, ranks, languages)
    method = SupernetMasking if config.weight_pruning.method == "supernet" else Masking
    return method(model, optimizer, config, ranks)
