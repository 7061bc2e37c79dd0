"""Predictors: what a transducer knows of the symbols so far.

A predictor is an ``nn.Module`` with ``output_dim``, `forward` over whole transcripts, and
``initial_state``, ``step``, ``select`` for searches; `step` after `step` equals `forward`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError


def stateless(vocab_size: int, *, dim: int = 512, context_size: int = 2) -> "Stateless":
    """A predictor that sees the last ``context_size`` symbols (Ghodsi et al. 2020)."""
    if context_size < 1:
        raise UserError(f"context_size={context_size}: at least 1 symbol")
    return Stateless(vocab_size, dim, context_size)


def lstm(
    vocab_size: int, *, dim: int = 512, num_layers: int = 1, dropout: float = 0.1
) -> "LstmPredictor":
    """A predictor that remembers the whole transcript: embedding, LSTM layers, LayerNorm."""
    if num_layers < 1:
        raise UserError(f"num_layers={num_layers}: at least 1 layer")
    return LstmPredictor(vocab_size, dim, num_layers, dropout)


class Stateless(nn.Module):
    """Embeddings of the last symbols, mixed by a grouped convolution, then ReLU.

    A transcript starts from ``[-1, ..., -1, 0]``: nothing, then blank. A negative symbol embeds as
    zeros (as in sherpa-onnx, which feeds -1 to the exported model).
    """

    def __init__(self, vocab_size: int, dim: int, context_size: int):
        super().__init__()
        self.output_dim = dim
        self.context_size = context_size
        self.embedding = nn.Embedding(vocab_size, dim)
        groups = dim // 4 if dim % 4 == 0 else dim
        self.conv = nn.Conv1d(dim, dim, context_size, groups=groups, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        """Symbols ``y`` (B, S) -> (B, S + 1, dim); position s has seen ``y[:, :s]``."""
        start = self.initial_state(y.size(0), y.device)
        return self.mix(torch.cat((start, y), dim=1))

    def mix(self, y: Tensor) -> Tensor:
        """Symbols with their context, (B, context_size + S) int64 -> (B, S + 1, dim)."""
        x = self.embedding(y.clamp(min=0)) * (y >= 0).unsqueeze(-1)
        return F.relu(self.conv(x.transpose(1, 2)).transpose(1, 2))

    def initial_state(self, n: int, device: torch.device) -> Tensor:
        """The context of ``n`` empty transcripts: (n, context_size) int64."""
        state = torch.full((n, self.context_size), -1, dtype=torch.int64, device=device)
        state[:, -1] = 0
        return state

    def step(self, tokens: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
        """Append ``tokens`` (n,) to the contexts, or nothing at the start -> (n, dim), state."""
        if tokens is not None:
            state = torch.cat((state[:, 1:], tokens.unsqueeze(1)), dim=1)
        return self.mix(state).squeeze(1), state

    def select(self, state: Tensor, index: Tensor) -> Tensor:
        """The states of hypotheses ``index`` (m,), in that order."""
        return state[index]


class LstmPredictor(nn.Module):
    """Embedding, LSTM, LayerNorm; a transcript starts from blank."""

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
        """Symbols ``y`` (B, S) -> (B, S + 1, dim); position s has seen ``y[:, :s]``."""
        return self._run(F.pad(y, (1, 0)), None)[0]

    def _run(self, y: Tensor, state: tuple[Tensor, Tensor] | None):
        x, state = self.lstm(self.dropout(self.embedding(y)), state)
        return self.dropout(self.norm(x)), state

    def initial_state(self, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Hidden and cell state of ``n`` empty transcripts: (num_layers, n, dim) zeros each."""
        zeros = self.norm.weight.new_zeros(self.lstm.num_layers, n, self.output_dim, device=device)
        return zeros, zeros

    def step(
        self, tokens: Tensor | None, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Append ``tokens`` (n,), or the starting blank if None -> (n, dim), state."""
        if tokens is None:
            tokens = torch.zeros(state[0].size(1), dtype=torch.int64, device=state[0].device)
        out, state = self._run(tokens.unsqueeze(1), state)
        return out.squeeze(1), state

    def select(self, state: tuple[Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """The states of hypotheses ``index`` (m,), in that order."""
        return state[0][:, index], state[1][:, index]
