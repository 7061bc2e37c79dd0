"""Make the optimiser of a training."""

import torch

from asrprune.base.errors import UserError
from asrprune.config import Config


def make_optimizer(model: torch.nn.Module, config: Config) -> torch.optim.AdamW:
    """Return AdamW for all parameters. Vectors (biases and norms) have no weight decay.

    Raises:
        UserError: AdamW refuses the options.
    """
    options = config.training.optimizer
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": options.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    try:
        return torch.optim.AdamW(
            groups, lr=options.lr, betas=tuple(options.betas), eps=options.eps, fused=True
        )
    except (ValueError, IndexError) as error:  # betas are out of range, or there is a single one
        raise UserError(f"training.optimizer: {error}") from error
