"""Summarise the symbols emitted so far: the predictors of a transducer.

A predictor is an ``nn.Module`` with ``output_dim`` and `forward` for whole transcripts. For
searches it has ``initial_state``, ``step`` and ``select``. Repeated calls of `step` give the same
outputs as `forward`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError


def stateless(vocab_size: int, *, dim: int = 512, context_size: int = 2) -> "Stateless":
    """Return a predictor that sees the last ``context_size`` symbols (Ghodsi et al. 2020).

    Raises:
        UserError: the context is empty.
    """
    if context_size < 1:
        raise UserError(f"context_size={context_size}: at least 1 symbol")
    return Stateless(vocab_size, dim, context_size)


def lstm(
    vocab_size: int, *, dim: int = 512, num_layers: int = 1, dropout: float = 0.1
) -> "LstmPredictor":
    """Return a predictor that sees the whole transcript: embedding, LSTM layers, LayerNorm.

    Raises:
        UserError: there is no layer.
    """
    if num_layers < 1:
        raise UserError(f"num_layers={num_layers}: at least 1 layer")
    return LstmPredictor(vocab_size, dim, num_layers, dropout)


class Stateless(nn.Module):
    """Mix the embeddings of the last symbols by a grouped convolution, followed by ReLU.

    A transcript starts from ``[-1, ..., -1, 0]``: no symbols, then blank. The embedding of a
    negative symbol is zero (as in sherpa-onnx, which feeds -1 to the exported model).
    """

    def __init__(self, vocab_size: int, dim: int, context_size: int):
        super().__init__()
        self.output_dim = dim
        self.context_size = context_size
        self.embedding = nn.Embedding(vocab_size, dim)
        groups = dim // 4 if dim % 4 == 0 else dim
        self.conv = nn.Conv1d(dim, dim, context_size, groups=groups, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        """Map symbols ``y`` (B, S) to outputs (B, S + 1, dim). Position s has seen ``y[:, :s]``."""
        start = self.initial_state(y.size(0), y.device)
        return self.mix(torch.cat((start, y), dim=1))

    def mix(self, y: Tensor) -> Tensor:
        """Map symbols with context, (B, context_size + S) int64, to outputs (B, S + 1, dim)."""
        x = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)
        return F.relu(self.conv(x.transpose(1, 2)).transpose(1, 2))

    def initial_state(self, n: int, device: torch.device) -> Tensor:
        """Return the context of ``n`` empty transcripts: (n, context_size) int64."""
        state = torch.full((n, self.context_size), -1, dtype=torch.int64, device=device)
        state[:, -1] = 0
        return state

    def step(self, tokens: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``tokens`` (n,) to the contexts, or nothing if None. Return (n, dim) and state."""
        if tokens is not None:
            state = torch.cat((state[:, 1:], tokens.unsqueeze(1)), dim=1)
        return self.mix(state).squeeze(1), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        """Return the states of hypotheses ``index`` (m,), in the order of ``index``."""
        return state[index]


class LstmPredictor(nn.Module):
    """Predict with embedding, LSTM and LayerNorm. A transcript starts from blank."""

    def __init__(self, vocab_size: int, dim: int, num_layers: int, dropout: float):
        super().__init__()
        self.output_dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.lstm = nn.LSTM(
            dim, dim, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0
        )
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, y: Tensor) -> Tensor:
        """Map symbols ``y`` (B, S) to outputs (B, S + 1, dim). Position s has seen ``y[:, :s]``."""
        return self._run(F.pad(y, (1, 0)), None)[0]

    def _run(self, y: Tensor, state: tuple[Tensor, Tensor] | None):
        x, state = self.lstm(self.dropout(self.embedding(y)), state)
        return self.dropout(self.norm(x)), state

    def initial_state(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return hidden and cell state of ``n`` empty transcripts, zeros (num_layers, n, dim)."""
        zeros = self.norm.weight.new_zeros(self.lstm.num_layers, n, self.output_dim, device=device)
        return zeros, zeros

    def step(
        self, tokens: Tensor | None, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Append ``tokens`` (n,), or the initial blank if None. Return (n, dim) and the state."""
        if tokens is None:
            tokens = torch.zeros(state[0].size(1), dtype=torch.int64, device=state[0].device)
        out, state = self._run(tokens.unsqueeze(1), state)
        return out.squeeze(1), state

    def select(self, state: tuple[Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states of hypotheses ``index`` (m,), in the order of ``index``."""
        return state[0][:, index], state[1][:, index]
