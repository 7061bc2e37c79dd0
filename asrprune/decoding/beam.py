"""Search with a modified beam: at most one symbol a frame, equal hypotheses are merged.

B utterances have K hypotheses each, stored in tensors. Each frame needs a few tensor operations for
the whole batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from asrprune.decoding.hypothesis import BLANK, Hypothesis, PredictorCursor, Search
from asrprune.transducer.model import Transducer

NEVER = float("-inf")


class BeamSearch(Search):
    """Search with a modified beam over B utterances, whose frames come in one or several pieces.

    At each frame, a hypothesis remains (blank) or grows by one symbol. Among the K·V candidates,
    those with equal tokens are merged by adding their probabilities. Then the K best candidates are
    kept. The hypotheses of a beam are distinct. So two candidates are equal only if one hypothesis
    remained and another grew into it. (icefall merges after choosing the K best, which leaves fewer
    than K.) ``<unk>`` is never emitted: its probability is added to blank.

    The result is the hypothesis with the largest log-probability per symbol. The symbols are the
    tokens and the ``context_size`` initial symbols of the predictor (icefall's
    ``length_norm=True``). The score of a hypothesis is its log-probability, not normalised: the sum
    over the alignments that remained in the beam. Its frames are those of the alignment that was in
    the beam first.
    """

    def __init__(
        self,
        model: Transducer,
        batch_size: int,
        device: torch.device,
        beam_size: int = 4,
        unk_id: int | None = None,
        blank_penalty: float = 0.0,
    ):
        super().__init__(model, unk_id, blank_penalty)
        self._cursor = PredictorCursor(model, batch_size * beam_size, device)
        self._context_size = getattr(model.predictor, "context_size", 1)
        shape = (batch_size, beam_size)
        self._tokens = torch.zeros(*shape, 0, dtype=torch.int64, device=device)  # blank-padded
        self._frames = torch.zeros_like(self._tokens)
        self._lengths = torch.zeros(shape, dtype=torch.int64, device=device)
        self._scores = torch.full(shape, NEVER, device=device)  # NEVER: no hypothesis
        self._scores[:, 0] = 0.0
        self._identity = torch.arange(beam_size, device=device).expand(shape)
        self._rows = torch.arange(batch_size, device=device)[:, None] * beam_size

    def _advance_frame(self, a: Tensor, active: Tensor, frame: int) -> None:
        batch_size, beam_size = self._scores.shape
        predicted = self._cursor.output.unflatten(0, (batch_size, beam_size))
        log_probs = self._without_unknown(
            self._log_probs(a[:, None], predicted), NEVER
        )  # (B, K, V)
        candidates = self._merged(self._scores[..., None] + log_probs)

        scores, best = candidates.flatten(1).topk(beam_size)  # (B, K)
        vocab_size = candidates.shape[-1]
        symbols = best % vocab_size
        emitted = active[:, None] & (symbols != BLANK) & (scores > NEVER)
        parents = torch.where(active[:, None], best // vocab_size, self._identity)
        self._scores = torch.where(active[:, None], scores, self._scores)
        self._grow(parents, emitted, symbols, frame)

        self._cursor.select((self._rows + parents).flatten())
        self._cursor.advance(emitted.flatten(), symbols.flatten())

    def _merged(self, candidates: Tensor) -> Tensor:
        """Merge candidates (B, K, V): add those that grow into another hypothesis to its blank."""
        if not self._tokens.shape[2]:
            return candidates
        vocab_size = candidates.shape[2]
        position = (self._lengths - 1).clamp(min=0)[..., None]
        last = self._tokens.gather(2, position)  # (B, K, 1); blank if there are no tokens
        prefix = self._tokens.scatter(2, position, BLANK)
        alive = self._scores > NEVER
        # grows[b, i, j]: hypothesis j, grown by the last token of i, is hypothesis i
        grows = (prefix[:, :, None] == self._tokens[:, None]).all(dim=-1)
        grows &= (self._lengths > 0)[:, :, None]
        grows &= alive[:, :, None] & alive[:, None]
        flat = candidates.flatten(1)
        grown = (self._identity[:, None] * vocab_size + last).flatten(1)  # (B, K * K) into flat
        gained = flat.gather(1, grown).unflatten(1, grows.shape[1:])
        gained = torch.where(grows, gained, NEVER).amax(dim=2)  # each i has at most one j
        # scatter_add, because two i with the same last token have the same candidate index
        flat = flat.scatter_add(1, grown, torch.where(grows, NEVER, 0.0).flatten(1))
        merged = flat.view_as(candidates)
        merged[..., BLANK] = merged[..., BLANK].logaddexp(gained)
        return merged

    def _grow(self, parents: Tensor, emitted: Tensor, symbols: Tensor, frame: int) -> None:
        """Replace hypothesis i by ``parents[i]``, and append a symbol where ``emitted`` is True."""
        lengths = self._lengths.gather(1, parents)
        room = max(self._tokens.shape[2], int((lengths + emitted).max()))
        index = parents[..., None].expand(-1, -1, self._tokens.shape[2])
        new = (0, room - self._tokens.shape[2])
        tokens = pad(self._tokens.gather(1, index), new)
        frames = pad(self._frames.gather(1, index), new)
        if room:
            place = lengths.clamp(max=room - 1)[..., None]
            old_token, old_frame = tokens.gather(2, place), frames.gather(2, place)
            tokens = tokens.scatter(
                2, place, torch.where(emitted[..., None], symbols[..., None], old_token)
            )
            frames = frames.scatter(2, place, torch.where(emitted[..., None], frame, old_frame))
        self._tokens, self._frames, self._lengths = tokens, frames, lengths + emitted

    def results(self) -> list[Hypothesis]:
        """Return the hypothesis with the best score per symbol for each utterance of the batch."""
        ranks = self._scores / (self._lengths + self._context_size)
        best = ranks.argmax(dim=1, keepdim=True)
        index = best[..., None].expand(-1, -1, self._tokens.shape[2])
        rows = zip(
            self._tokens.gather(1, index).squeeze(1).tolist(),
            self._frames.gather(1, index).squeeze(1).tolist(),
            self._lengths.gather(1, best).squeeze(1).tolist(),
            self._scores.gather(1, best).squeeze(1).tolist(),
            strict=True,
        )
        return [Hypothesis(tokens[:n], frames[:n], score) for tokens, frames, n, score in rows]
