"""Search greedily: take the most probable symbol at every encoder frame, batch by batch."""

import torch
from torch import Tensor

from asrprune.decoding.hypothesis import BLANK, Hypothesis, PredictorCursor, Search
from asrprune.transducer.model import Transducer


class GreedySearch(Search):
    """Search greedily over B utterances, whose encoder frames come in one or several pieces.

    The most probable symbol is taken. If it is ``<unk>``, nothing is emitted, as for blank. This is
    sherpa-onnx's rule, so a model decodes here as in deployment.

    The score of a hypothesis is the sum of the log-probabilities of the chosen symbols, including
    blanks. (After ``max_sym_per_frame`` symbols, the search moves to the next frame without
    choosing a blank.)
    """

    def __init__(
        self,
        model: Transducer,
        batch_size: int,
        device: torch.device,
        max_sym_per_frame: int = 1,
        unk_id: int | None = None,
        blank_penalty: float = 0.0,
    ):
        super().__init__(model, BLANK if unk_id is None else unk_id, blank_penalty)
        self._cursor = PredictorCursor(model, batch_size, device)
        self._max_sym_per_frame = max_sym_per_frame
        self._scores = torch.zeros(batch_size, device=device)
        self._symbols: list[Tensor] = []  # (B,) each, blank where nothing was emitted
        self._frames: list[int] = []  # the frame of each entry of _symbols

    def _advance_frame(self, a: Tensor, active: Tensor, frame: int) -> None:
        for count in range(self._max_sym_per_frame):
            if count and not active.any():
                break
            best, symbols = self._log_probs(a, self._cursor.output).max(dim=-1)
            emitted = active & (symbols != BLANK) & (symbols != self._unk_id)
            self._scores += torch.where(active, best, 0.0)
            self._symbols.append(torch.where(emitted, symbols, BLANK))
            self._frames.append(frame)
            self._cursor.advance(emitted, symbols)
            active = emitted

    def results(self) -> list[Hypothesis]:
        """Return the hypothesis of each utterance, in the order of the batch."""
        scores = self._scores.tolist()
        if not self._symbols:
            return [Hypothesis([], [], score) for score in scores]
        hypotheses = []
        for symbols, score in zip(torch.stack(self._symbols, 1).tolist(), scores, strict=True):
            pairs = [(s, f) for s, f in zip(symbols, self._frames, strict=True) if s != BLANK]
            hypotheses.append(Hypothesis([s for s, _ in pairs], [f for _, f in pairs], score))
        return hypotheses
