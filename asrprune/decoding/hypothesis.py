"""Provide the common parts of the searches: hypotheses, loop over frames, predictor outputs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.transducer.model import Transducer

BLANK = 0


@dataclass(frozen=True)
class Hypothesis:
    """Hold the result of the recognition of one utterance."""

    tokens: list[int]
    frames: list[int]  # encoder frame (from 0) at which each token was emitted
    score: float  # log-probability; the search defines which alignments it sums


class Search(ABC):
    """Search over B utterances, whose encoder frames come in one or several pieces."""

    def __init__(self, model: Transducer, unk_id: int | None, blank_penalty: float):
        self._joiner = model.joiner
        self._unk_id = unk_id
        self._blank_penalty = blank_penalty
        self._start = 0  # number of frames in earlier pieces

    def advance(self, h: Tensor, h_lens: Tensor) -> None:
        """Process the next encoder frames.

        Args:
            h: encoder outputs (B, T', D).
            h_lens: number of valid frames (B,). After the end of an utterance, 0 in every further
                piece.
        """
        projected = self._joiner.project_encoder(h)
        for frame in range(int(h_lens.max())):
            self._advance_frame(projected[:, frame], frame < h_lens, self._start + frame)
        self._start += h.shape[1]

    def _log_probs(self, a: Tensor, b: Tensor) -> Tensor:
        """Return log-probabilities (..., V) float32 of projected frames and predictor outputs.

        The blank penalty is subtracted from the logit of blank.
        """
        logits = self._joiner(a, b).float()
        if self._blank_penalty:
            logits[..., BLANK] -= self._blank_penalty
        return logits.log_softmax(dim=-1)

    def _without_unknown(self, log_probs: Tensor, never: float) -> Tensor:
        """Add the probability of ``<unk>`` to blank in place, and set ``<unk>`` to ``never``."""
        if self._unk_id is not None:
            unknown = log_probs[..., self._unk_id].clone()
            log_probs[..., BLANK] = log_probs[..., BLANK].logaddexp(unknown)
            log_probs[..., self._unk_id] = never
        return log_probs

    @abstractmethod
    def _advance_frame(self, a: Tensor, active: Tensor, frame: int) -> None:
        """Process one projected frame ``a`` (B, J) where ``active`` (B,) bool is True."""

    @abstractmethod
    def results(self) -> list[Hypothesis]:
        """Return the hypotheses so far, in the order of the batch."""


class PredictorCursor:
    """Hold the predictor's outputs for N hypotheses, and update them where symbols are emitted.

    ``output`` (N, J) is already projected for the joiner.
    """

    def __init__(self, model: Transducer, size: int, device: torch.device):
        self._predictor = model.predictor
        self._project = model.joiner.project_predictor
        # The interface of a predictor does not define which axis of its state counts hypotheses.
        self._axes = _map_states(
            _differing_axis,
            self._predictor.initial_state(2, device),
            self._predictor.initial_state(3, device),
        )
        state = self._predictor.initial_state(size, device)
        output, self._state = self._predictor.step(None, state)
        self.output = self._project(output)

    def select(self, index: Tensor) -> None:
        """Replace hypothesis ``i`` by hypothesis ``index[i]``. ``index`` is (N,) int64."""
        self._state = self._predictor.select(self._state, index)
        self.output = self.output[index]

    def advance(self, emitted: Tensor, tokens: Tensor) -> None:
        """Feed ``tokens`` (N,) int64 to the hypotheses where ``emitted`` (N,) bool is True."""
        index = emitted.nonzero().squeeze(1)
        if not len(index):
            return
        some = self._predictor.select(self._state, index)
        output, some = self._predictor.step(tokens[index], some)
        self.output = self.output.index_copy(0, index, self._project(output).to(self.output.dtype))
        self._state = _map_states(
            lambda old, new, axis: old.index_copy(axis, index, new), self._state, some, self._axes
        )


def _map_states(function: Callable, first: Any, *others: Any) -> Any:
    """Apply ``function`` to the tensors of equally nested tuples or lists of tensors."""
    if isinstance(first, Tensor):
        return function(first, *others)
    return tuple(_map_states(function, *parts) for parts in zip(first, *others, strict=True))


def _differing_axis(two: Tensor, three: Tensor) -> int:
    for axis, sizes in enumerate(zip(two.shape, three.shape, strict=True)):
        if sizes == (2, 3):
            return axis
    raise UserError(
        "the predictor's initial_state(n, device) holds a tensor without an axis of size n"
    )
