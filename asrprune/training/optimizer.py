"""The optimiser of a training."""

import torch

from asrprune.base.errors import UserError
from asrprune.config import Config


def make_optimizer(model: torch.nn.Module, config: Config) -> torch.optim.AdamW:
    """AdamW; vectors (biases, norms) are not decayed.

    Raises:
        UserError: options that AdamW refuses.
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
    except (ValueError, IndexError) as error:  # betas out of range, or only one of them
        raise UserError(f"training.optimizer: {error}") from error
