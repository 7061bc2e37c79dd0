"""Greedy search against a plain loop over one utterance, alone and in batches."""

import pytest
import torch

from asrprune.decoding.greedy import GreedySearch


def reference(model, h, max_sym_per_frame=1, unk_id=None):
    """Greedy search written the slow way: the predictor sees all tokens again at every step."""
    tokens, frames, score = [], [], 0.0
    a = model.joiner.project_encoder(h)
    for frame in range(len(h)):
        for _ in range(max_sym_per_frame):
            g = model.predictor(torch.tensor([tokens], dtype=torch.int64))[0, -1]
            log_probs = model.joiner(a[frame], model.joiner.project_predictor(g)).log_softmax(-1)
            symbol = int(log_probs.argmax())
            score += float(log_probs[symbol])
            if symbol in (0, unk_id):
                break
            tokens.append(symbol)
            frames.append(frame)
    return tokens, frames, score


def search(model, h, lens, pieces=(), **options):
    found = GreedySearch(model, len(h), h.device, **options)
    with torch.inference_mode():
        start = 0
        for size in pieces:
            found.advance(h[:, start : start + size], (lens - start).clamp(0, size))
            start += size
        found.advance(h[:, start:], (lens - start).clamp(min=0))
    return [(x.tokens, x.frames, pytest.approx(x.score, abs=1e-4)) for x in found.results()]


@pytest.fixture
def h():
    return torch.randn(5, 30, 16, generator=torch.Generator().manual_seed(1))


LENS = torch.tensor([30, 0, 1, 17, 30])


@pytest.mark.parametrize("predictor", ["stateless", "lstm"])
@pytest.mark.parametrize("max_sym_per_frame", [1, 3])
@pytest.mark.parametrize("unk_id", [None, 2])
def test_equals_the_plain_loop(tiny_model, h, predictor, max_sym_per_frame, unk_id):
    model = tiny_model(predictor)
    options = {"max_sym_per_frame": max_sym_per_frame, "unk_id": unk_id}
    expected = [reference(model, x[:n], **options) for x, n in zip(h, LENS, strict=True)]
    assert search(model, h, LENS, **options) == expected
    emitted = [token for tokens, _, _ in expected for token in tokens]
    assert len(emitted) > 10 and unk_id not in emitted
    per_frame = [frames.count(f) for _, frames, _ in expected for f in frames]
    assert max(per_frame) == max_sym_per_frame  # the models do reach the limit


def test_padding_does_not_matter(tiny_model, h):
    model = tiny_model("lstm")
    junk = h.clone()
    for row, length in zip(junk, LENS, strict=True):
        row[length:] = float("nan")
    assert search(model, junk, LENS) == search(model, h, LENS)


def test_pieces_do_not_matter(tiny_model, h):
    model = tiny_model("lstm")
    assert search(model, h, LENS, pieces=(1, 7, 12)) == search(model, h, LENS)


def test_emits_at_most_one_symbol_a_frame(tiny_model, h):
    for _, frames, _ in search(tiny_model(), h, LENS):
        assert frames == sorted(set(frames))
