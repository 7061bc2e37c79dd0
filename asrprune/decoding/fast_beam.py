"""Search with k2's frame-synchronous search over a lattice, and take the best path.

The search needs k2 (https://github.com/k2-fsa/k2), which is optional. The other two searches work
without k2. Only k2's documented Python interface is used. The graph is k2's trivial graph: any
symbol sequence, at most one symbol a frame.
"""

import importlib
from types import ModuleType

import torch
from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.decoding.hypothesis import BLANK, Hypothesis, Search
from asrprune.decoding.options import DecodingOptions
from asrprune.transducer.model import Transducer

NEEDED = (
    "RnntDecodingConfig",
    "RnntDecodingStream",
    "RnntDecodingStreams",
    "shortest_path",
    "trivial_graph",
)


def load_k2() -> ModuleType:
    """Return the k2 module.

    Raises:
        UserError: k2 is not installed, does not load, or lacks a function.
    """
    way_out = (
        "tools/install_k2.sh installs the k2 that fits your torch; or use "
        "--decoding-method modified_beam_search, which needs no k2"
    )
    try:
        k2 = importlib.import_module("k2")
    except Exception as error:  # a k2 built for another torch can raise any exception
        raise UserError(
            f"fast_beam_search needs k2, which does not load ({error}): {way_out}"
        ) from error
    missing = [name for name in NEEDED if not hasattr(k2, name)]
    if missing:
        raise UserError(f"fast_beam_search: this k2 has no {', '.join(missing)}: {way_out}")
    return k2


class FastBeamSearch(Search):
    """Search with k2 over B utterances, whose frames come in one or several pieces.

    ``<unk>`` is never emitted: its probability is added to blank. The score of a hypothesis is the
    log-probability of its best alignment.

    Raises:
        UserError: k2 is missing, or the predictor has no bounded context (such as an LSTM).
    """

    def __init__(
        self,
        model: Transducer,
        batch_size: int,
        device: torch.device,
        options: DecodingOptions,
        unk_id: int | None = None,
    ):
        super().__init__(model, unk_id, options.blank_penalty)
        self._k2 = load_k2()
        context_size = getattr(model.predictor, "context_size", None)
        if context_size is None:
            raise UserError(
                f"fast_beam_search needs a predictor that sees a fixed number of symbols, and "
                f"{type(model.predictor).__name__} sees them all: use modified_beam_search"
            )
        self._predictor = model.predictor
        self._lengths = torch.zeros(batch_size, dtype=torch.int64, device=device)
        config = self._k2.RnntDecodingConfig(
            vocab_size=model.vocab_size,
            decoder_history_len=context_size,
            beam=options.fast_beam,
            max_states=options.max_states,
            max_contexts=options.max_contexts,
        )
        graph = self._k2.trivial_graph(model.vocab_size - 1, device=device)
        streams = [self._k2.RnntDecodingStream(graph) for _ in range(batch_size)]
        self._streams = self._k2.RnntDecodingStreams(streams, config)

    def _advance_frame(self, a: Tensor, active: Tensor, frame: int) -> None:
        shape, contexts = self._streams.get_contexts()
        rows = shape.row_ids(1).to(torch.int64)  # the utterance of each context
        predicted = self._joiner.project_predictor(
            self._predictor(mark_start(contexts.to(torch.int64)))[:, -1]
        )
        log_probs = self._log_probs(a[rows], predicted)
        log_probs = self._without_unknown(log_probs, torch.finfo(log_probs.dtype).min)
        self._streams.advance(log_probs)
        self._lengths += active

    def results(self) -> list[Hypothesis]:
        """Return the hypotheses in the order of the batch, and end the search."""
        empty = Hypothesis([], [], 0.0)
        if not self._lengths.any():
            return [empty] * len(self._lengths)
        self._streams.terminate_and_flush_to_streams()
        # k2 cannot make a lattice of 0 frames; the result of 1 frame is dropped below
        num_frames = self._lengths.clamp(min=1).tolist()
        lattice = self._streams.format_output(num_frames, allow_partial=True)
        best = self._k2.shortest_path(lattice, use_double_scores=True)
        return [
            _hypothesis(best[row].labels, best[row].scores) if length else empty
            for row, length in enumerate(self._lengths.tolist())
        ]


def _hypothesis(labels: Tensor, scores: Tensor) -> Hypothesis:
    """Return the hypothesis of a path.

    A path has one arc for each frame (0 is blank), and a last arc to the final state, labelled -1.
    """
    emitted = [(token, frame) for frame, token in enumerate(labels.tolist()) if token > BLANK]
    return Hypothesis([t for t, _ in emitted], [f for _, f in emitted], float(scores.sum()))


def mark_start(contexts: Tensor) -> Tensor:
    """Return contexts (N, C) in the form that the predictor was trained with.

    k2 fills an incomplete context with blanks. The predictor's transcripts start from one blank,
    with no symbols (-1) before. Blanks are only at the front, because no symbol of a context is
    blank.
    """
    leading = contexts == BLANK
    before_another = torch.zeros_like(leading)
    before_another[:, :-1] = leading[:, :-1] & leading[:, 1:]
    return contexts.masked_fill(before_another, -1)
