"""Random lattices and batches for the tests of the loss, and the sum over all alignments."""

import math
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Tensor, nn


def random_arcs(batch, symbols, frames, seed=0):
    """px (B, S, T) and py (B, S + 1, T), float64."""
    generator = torch.Generator().manual_seed(seed)
    px = torch.randn(batch, symbols, frames, generator=generator, dtype=torch.float64)
    py = torch.randn(batch, symbols + 1, frames, generator=generator, dtype=torch.float64)
    return px, py


def brute_force(px, py, modified):
    """log of the sum over all alignments of one utterance, px (S, T), py (S + 1, T)."""
    symbols, frames = px.shape
    totals = []
    for alignment in all_alignments(symbols, frames, modified):
        total = sum(px[s, t].item() for s, t in enumerate(alignment))
        for t in range(frames):
            if not (modified and t in alignment):
                total += py[sum(emitted <= t for emitted in alignment), t].item()
        totals.append(total)
    highest = max(totals, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(total - highest) for total in totals))


def all_alignments(symbols, frames, modified):
    """Each alignment as the frames that its symbols are emitted at."""
    if modified:
        return list(combinations(range(frames), symbols))
    slots = combinations(range(symbols + frames - 1), symbols)  # stars and bars
    return [tuple(slot - i for i, slot in enumerate(chosen)) for chosen in slots]


@dataclass
class Batch:
    """Arguments of ``transducer_loss``, the joiner aside."""

    am: Tensor
    lm: Tensor
    a: Tensor
    b: Tensor
    y: Tensor
    t_lens: Tensor
    y_lens: Tensor

    def scores(self):
        return self.am, self.lm, self.a, self.b

    def with_gradients(self):
        return replace(self, **{k: getattr(self, k).clone().requires_grad_() for k in _SCORES})

    def of(self, index):
        """One utterance alone, without padding."""
        t, s = int(self.t_lens[index]), int(self.y_lens[index])
        one = slice(index, index + 1)
        return Batch(
            self.am[one, :t],
            self.lm[one, : s + 1],
            self.a[one, :t],
            self.b[one, : s + 1],
            self.y[one, :s],
            self.t_lens[one],
            self.y_lens[one],
        )


_SCORES = ("am", "lm", "a", "b")


def random_batch(t_lens, y_lens, vocab=7, dim=6, seed=0, dtype=torch.float32, extra=0):
    """Random scores, ``extra`` frames and symbols longer than the lengths ask for."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    batch, frames, symbols = len(t_lens), max(t_lens) + extra, max(y_lens) + extra
    return Batch(
        2 * normal(batch, frames, vocab),
        2 * normal(batch, symbols + 1, vocab),
        normal(batch, frames, dim),
        normal(batch, symbols + 1, dim),
        torch.randint(1, vocab, (batch, symbols), generator=generator),
        torch.tensor(t_lens),
        torch.tensor(y_lens),
    )


class SmallJoiner(nn.Module):
    """``output(tanh(a + b))``."""

    def __init__(self, vocab=7, dim=6, dtype=torch.float32):
        super().__init__()
        self.output = nn.Linear(dim, vocab, dtype=dtype)
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(2 * torch.randn(parameter.shape, generator=generator, dtype=dtype))

    def forward(self, a, b):
        return self.output(torch.tanh(a + b))
