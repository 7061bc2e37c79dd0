"""Modified beam search against the sum over all alignments, and against a search over dicts."""

from itertools import product

import pytest
import torch

from asrprune.decoding.beam import BeamSearch
from asrprune.decoding.greedy import GreedySearch

CONTEXT = {"stateless": 2, "lstm": 1}


def scorer(model, h, unk_id=None):
    """``score(tokens, frame)``: log-probabilities (V,) as floats, those of <unk> given to blank."""
    a = model.joiner.project_encoder(h)
    known = {}

    def score(tokens, frame):
        if (tokens, frame) not in known:
            g = model.predictor(torch.tensor([tokens], dtype=torch.int64))[0, -1]
            log_probs = model.joiner(a[frame], model.joiner.project_predictor(g)).log_softmax(-1)
            if unk_id is not None:
                log_probs[0] = log_probs[0].logaddexp(log_probs[unk_id].clone())
                log_probs[unk_id] = float("-inf")
            known[tokens, frame] = log_probs.double()
        return known[tokens, frame]

    return score


def best_of(sums, context_size):
    """(tokens, log-probability) of the largest log-probability per symbol."""
    tokens = max(sums, key=lambda tokens: sums[tokens] / (len(tokens) + context_size))
    return list(tokens), pytest.approx(float(sums[tokens]), abs=1e-4)


def exhaustive(model, h, unk_id=None):
    """The probability of each token sequence: the sum over its one-symbol-a-frame alignments."""
    score = scorer(model, h, unk_id)
    sums = {}
    for alignment in product(range(model.vocab_size), repeat=len(h)):
        tokens, total = (), torch.zeros((), dtype=torch.float64)
        for frame, symbol in enumerate(alignment):
            total = total + score(tokens, frame)[symbol]
            tokens += (symbol,) if symbol else ()
        sums[tokens] = sums[tokens].logaddexp(total) if tokens in sums else total
    return sums


def beam_over_dicts(model, h, beam_size):
    """The same pruning with one dict a frame: merge all candidates, then keep the best."""
    score = scorer(model, h)
    beam = {(): torch.zeros((), dtype=torch.float64)}
    for frame in range(len(h)):
        candidates = {}
        for tokens, total in beam.items():
            for symbol, log_prob in enumerate(score(tokens, frame)):
                grown = tokens + ((symbol,) if symbol else ())
                value = total + log_prob
                old = candidates.get(grown)
                candidates[grown] = value if old is None else old.logaddexp(value)
        kept = sorted(candidates, key=candidates.get, reverse=True)[:beam_size]
        beam = {tokens: candidates[tokens] for tokens in kept}
    return beam


def search(model, h, lens, beam_size, pieces=(), **options):
    found = BeamSearch(model, len(h), h.device, beam_size, **options)
    with torch.inference_mode():
        start = 0
        for size in pieces:
            found.advance(h[:, start : start + size], (lens - start).clamp(0, size))
            start += size
        found.advance(h[:, start:], (lens - start).clamp(min=0))
    return found.results()


def plain(hypotheses):
    return [(x.tokens, pytest.approx(x.score, abs=1e-4)) for x in hypotheses]


@pytest.fixture
def h():
    return torch.randn(5, 30, 16, generator=torch.Generator().manual_seed(1))


LENS = torch.tensor([30, 0, 1, 17, 30])


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("unk_id", [None, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_is_exhaustive(tiny_model, predictor, unk_id, seed):
    model = tiny_model(predictor, vocab_size=3, seed=seed)
    model.joiner.output.weight.div_(6)  # flat: many alignments matter
    h = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(seed))
    lens = torch.tensor([5, 3, 4])
    sums = [exhaustive(model, x[:n], unk_id) for x, n in zip(h, lens, strict=True)]
    for s in sums:
        assert float(torch.stack(list(s.values())).logsumexp(0)) == pytest.approx(0, abs=1e-5)
    found = search(model, h, lens, beam_size=64, unk_id=unk_id)
    assert plain(found) == [best_of(s, CONTEXT[predictor]) for s in sums]


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("beam_size", [1, 2, 4, 7])
def test_equals_a_beam_over_dicts(tiny_model, h, predictor, beam_size):
    model = tiny_model(predictor, vocab_size=5)
    model.joiner.output.weight.div_(3)
    expected = [
        best_of(beam_over_dicts(model, x[:n], beam_size), CONTEXT[predictor])
        for x, n in zip(h, LENS, strict=True)
    ]
    assert plain(search(model, h, LENS, beam_size)) == expected


def test_a_beam_of_one_is_greedy(tiny_model, h):
    model = tiny_model("lstm")
    greedy = GreedySearch(model, len(h), h.device)
    greedy.advance(h, LENS)
    found = search(model, h, LENS, beam_size=1)
    assert plain(found) == plain(greedy.results())
    assert [x.frames for x in found] == [x.frames for x in greedy.results()]


def test_batch_padding_and_pieces_do_not_matter(tiny_model, h):
    model = tiny_model("lstm")
    alone = [
        search(model, x[None, :n], n[None], beam_size=4)[0] for x, n in zip(h, LENS, strict=True)
    ]
    junk = h.clone()
    for row, length in zip(junk, LENS, strict=True):
        row[length:] = float("nan")
    for found in (
        search(model, h, LENS, beam_size=4),
        search(model, junk, LENS, beam_size=4),
        search(model, h, LENS, beam_size=4, pieces=(1, 7, 12)),
    ):
        assert plain(found) == plain(alone)
        assert [x.frames for x in found] == [x.frames for x in alone]


def test_frames_rise_and_belong_to_the_tokens(tiny_model, h):
    for found, length in zip(search(tiny_model(), h, LENS, beam_size=4), LENS, strict=True):
        assert len(found.frames) == len(found.tokens)
        assert found.frames == sorted(set(found.frames))
        assert all(0 <= frame < length for frame in found.frames)
