"""The joiner: encoder and predictor frames, projected and added, to scores of symbols."""

import torch
from torch import Tensor, nn


class Joiner(nn.Module):
    """``output(tanh(a + b))``; the projections are apart, so that a search does each only once."""

    def __init__(self, encoder_dim: int, predictor_dim: int, joiner_dim: int, vocab_size: int):
        super().__init__()
        self.encoder_proj = nn.Linear(encoder_dim, joiner_dim)
        self.predictor_proj = nn.Linear(predictor_dim, joiner_dim)
        self.output = nn.Linear(joiner_dim, vocab_size)

    def project_encoder(self, h: Tensor) -> Tensor:
        """(..., encoder_dim) -> (..., joiner_dim)."""
        return self.encoder_proj(h)

    def project_predictor(self, g: Tensor) -> Tensor:
        """(..., predictor_dim) -> (..., joiner_dim)."""
        return self.predictor_proj(g)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Projected ``a``, ``b``, broadcastable (..., joiner_dim) -> logits (..., vocab_size)."""
        return self.output(torch.tanh(a + b))
