"""Fast beam search: k2's frame-synchronous search over a lattice, then its best path.

It needs k2 (https://github.com/k2-fsa/k2), which is optional; without it the other two searches
work. Only k2's documented Python interface is used, with its trivial graph: any symbol sequence,
at most one symbol a frame.
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
    """The k2 module.

    Raises:
        UserError: it is not installed, does not load, or lacks a function that is needed.
    """
    way_out = (
        "tools/install_k2.sh installs the k2 that fits your torch; or use "
        "--decoding-method modified_beam_search, which needs no k2"
    )
    try:
        k2 = importlib.import_module("k2")
    except Exception as error:  # a k2 built for another torch fails in ways of its own
        raise UserError(
            f"fast_beam_search needs k2, which does not load ({error}): {way_out}"
        ) from error
    missing = [name for name in NEEDED if not hasattr(k2, name)]
    if missing:
        raise UserError(f"fast_beam_search: this k2 has no {', '.join(missing)}: {way_out}")
    return k2


class FastBeamSearch(Search):
    """Fast beam search over B utterances whose frames come in one or several pieces.

    ``<unk>`` is never emitted: its probability goes to blank. A hypothesis's score is the
    log-probability of its best alignment.

    Raises:
        UserError: no k2; or a predictor without a bounded context, such as an LSTM.
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
        """What was recognised, in the order of the batch; the search ends here."""
        empty = Hypothesis([], [], 0.0)
        if not self._lengths.any():
            return [empty] * len(self._lengths)
        self._streams.terminate_and_flush_to_streams()
        # k2 makes no lattice of no frames; what it makes of one is dropped again
        num_frames = self._lengths.clamp(min=1).tolist()
        lattice = self._streams.format_output(num_frames, allow_partial=True)
        best = self._k2.shortest_path(lattice, use_double_scores=True)
        return [
            _hypothesis(best[row].labels, best[row].scores) if length else empty
            for row, length in enumerate(self._lengths.tolist())
        ]


def _hypothesis(labels: Tensor, scores: Tensor) -> Hypothesis:
    """A path has one arc a frame (0 is blank) and then one to the final state, labelled -1."""
    emitted = [(token, frame) for frame, token in enumerate(labels.tolist()) if token > BLANK]
    return Hypothesis([t for t, _ in emitted], [f for _, f in emitted], float(scores.sum()))


def mark_start(contexts: Tensor) -> Tensor:
    """Contexts (N, C) as the predictor was trained on them.

    k2 fills a context that is not yet full with blanks; our transcripts start from one blank, with
    nothing (-1) before it. Blanks come at the front only: no symbol of a context is one.
    """
    leading = contexts == BLANK
    before_another = torch.zeros_like(leading)
    before_another[:, :-1] = leading[:, :-1] & leading[:, 1:]
    return contexts.masked_fill(before_another, -1)
