"""Fast beam search: refused without k2; and its use of k2's interface, on a stand-in for k2.

The stand-in keeps every state, as k2 does with wide beams; k2 itself is never installed in CI.
"""

import sys
from itertools import product
from types import ModuleType, SimpleNamespace

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.decoding.fast_beam import FastBeamSearch, mark_start
from asrprune.decoding.options import DecodingOptions

OPTIONS = DecodingOptions(method="fast_beam_search")


class Streams:
    """k2.RnntDecodingStreams over trivial graphs, nothing pruned: best path of each context."""

    def __init__(self, streams, config):
        self.config = config
        start = {(0,) * config.decoder_history_len: (0.0, ())}
        self.history = [[start] for _ in streams]  # of each stream: after each frame
        self.ended = False

    def get_contexts(self):
        rows = [i for i, frames in enumerate(self.history) for _ in frames[-1]]
        contexts = [context for frames in self.history for context in frames[-1]]
        shape = SimpleNamespace(row_ids=lambda axis: torch.tensor(rows, dtype=torch.int32))
        return shape, torch.tensor(contexts, dtype=torch.int32)

    def advance(self, log_probs):
        rows = iter(log_probs.tolist())
        for frames in self.history:
            new = {}
            for context, (score, labels) in frames[-1].items():
                for symbol, log_prob in enumerate(next(rows)):
                    key = (*context[1:], symbol) if symbol else context
                    path = (score + log_prob, (*labels, symbol))
                    new[key] = max(new.get(key, path), path)
            frames.append(new)

    def terminate_and_flush_to_streams(self):
        self.ended = True

    def format_output(self, num_frames, allow_partial=False):
        assert self.ended and allow_partial and min(num_frames) > 0
        return [frames[n] for frames, n in zip(self.history, num_frames, strict=True)]


def shortest_path(lattice, use_double_scores):
    paths = []
    for states in lattice:
        score, labels = max(states.values())
        paths.append(
            SimpleNamespace(labels=torch.tensor([*labels, -1]), scores=torch.tensor([score, 0.0]))
        )
    return paths


@pytest.fixture
def stand_in(monkeypatch):
    k2 = ModuleType("k2")
    k2.RnntDecodingConfig = SimpleNamespace
    k2.RnntDecodingStream = lambda graph: graph
    k2.RnntDecodingStreams = Streams
    k2.trivial_graph = lambda max_token, device: max_token
    k2.shortest_path = shortest_path
    monkeypatch.setitem(sys.modules, "k2", k2)
    return k2


@pytest.mark.parametrize("unk_id", [None, 2])
def test_finds_the_best_alignment(tiny_model, stand_in, unk_id):
    model = tiny_model(vocab_size=4)
    h = torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0))
    lens = torch.tensor([5, 3, 0, 4])
    search = FastBeamSearch(model, 4, h.device, OPTIONS, unk_id)
    with torch.no_grad():
        search.advance(h[:, :2], lens.clamp(max=2))
        search.advance(h[:, 2:], (lens - 2).clamp(min=0))
        a = model.joiner.project_encoder(h)
    for found, row, length in zip(search.results(), a, lens.tolist(), strict=True):
        best = (float("-inf"), ())
        for alignment in product(range(4), repeat=length):
            score, tokens = 0.0, []
            for frame, symbol in enumerate(alignment):
                g = model.predictor(torch.tensor([tokens], dtype=torch.int64))[0, -1]
                predicted = model.joiner.project_predictor(g)
                log_probs = model.joiner(row[frame], predicted).log_softmax(-1)
                if unk_id is not None:
                    log_probs[0] = log_probs[0].logaddexp(log_probs[unk_id].clone())
                    log_probs[unk_id] = float("-inf")
                score += float(log_probs[symbol])
                tokens += [symbol] if symbol else []
            best = max(best, (score, alignment))
        assert found.tokens == [symbol for symbol in best[1] if symbol]
        assert found.frames == [frame for frame, symbol in enumerate(best[1]) if symbol]
        assert found.score == pytest.approx(best[0], abs=1e-4)


def test_contexts_start_as_in_training(tiny_model):
    predictor = tiny_model().predictor
    contexts = torch.tensor([[0, 0], [0, 3], [3, 4]])
    assert mark_start(contexts).tolist() == [[-1, 0], [0, 3], [3, 4]]
    assert mark_start(torch.tensor([[0, 0, 5]])).tolist() == [[-1, 0, 5]]
    found = predictor(mark_start(contexts))[:, -1]
    texts = [torch.tensor([text], dtype=torch.int64) for text in ([], [3], [3, 4])]
    for output, text in zip(found, texts, strict=True):
        torch.testing.assert_close(output, predictor(text)[0, -1])


def test_refused_by_name_where_k2_is_not(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "k2", None)
    with pytest.raises(UserError, match="fast_beam_search needs k2.*tools/install_k2.sh"):
        FastBeamSearch(tiny_model(), 1, torch.device("cpu"), OPTIONS)


def test_refused_where_k2_lacks_a_function(tiny_model, stand_in):
    del stand_in.trivial_graph
    with pytest.raises(UserError, match="this k2 has no trivial_graph.*install_k2"):
        FastBeamSearch(tiny_model(), 1, torch.device("cpu"), OPTIONS)


def test_refused_with_an_unbounded_predictor(tiny_model, stand_in):
    with pytest.raises(UserError, match="LstmPredictor sees them all"):
        FastBeamSearch(tiny_model("lstm"), 1, torch.device("cpu"), OPTIONS)
