"""Join projected encoder and predictor frames to logits of symbols."""

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """Compute ``output(tanh(a + b))`` of projected encoder and predictor outputs.

    The projections are separate methods, so that a search computes each projection only once.
    """

    def __init__(self, encoder_dim: int, predictor_dim: int, joiner_dim: int, vocab_size: int):
        super().__init__()
        self.encoder_proj = nn.Linear(encoder_dim, joiner_dim)
        self.predictor_proj = nn.Linear(predictor_dim, joiner_dim)
        self.output = nn.Linear(joiner_dim, vocab_size)

    def project_encoder(self, h: Tensor) -> Tensor:
        """Project encoder outputs: (..., encoder_dim) -> (..., joiner_dim)."""
        return self.encoder_proj(h)

    def project_predictor(self, g: Tensor) -> Tensor:
        """Project predictor outputs: (..., predictor_dim) -> (..., joiner_dim)."""
        return self.predictor_proj(g)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return logits (..., vocab_size) of projections ``a`` and ``b``, (..., joiner_dim)."""
        return self.output(torch.tanh(a + b))
