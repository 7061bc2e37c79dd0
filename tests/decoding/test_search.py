"""Recognition from features: whole, batched and streaming are one."""

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.search import recognize
from asrprune.decoding.streaming import encode_chunks

LENS = torch.tensor([61, 1, 8, 40, 33])  # chunks of 8 frames: whole ones, partial ones, single


@pytest.fixture
def x():
    return torch.randn(5, 61, 8, generator=torch.Generator().manual_seed(0)) * 2 - 3


def plain(hypotheses):
    return [(x.tokens, x.frames, pytest.approx(x.score, abs=1e-3)) for x in hypotheses]


@torch.inference_mode()
def test_chunks_joined_are_the_whole(tiny_model, x):
    model = tiny_model()
    expected, expected_lens = model.encode(x, LENS)
    pieces, lens = zip(*encode_chunks(model, x, LENS), strict=True)
    found = torch.cat(pieces, dim=1)
    assert torch.stack(lens).sum(0).tolist() == expected_lens.tolist()
    for a, b, n in zip(found, expected, expected_lens, strict=True):
        torch.testing.assert_close(a[:n], b[:n], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_streaming_equals_whole(tiny_model, x, method):
    model = tiny_model()
    whole = recognize(model, x, LENS, DecodingOptions(method=method))
    assert sum(len(found.tokens) for found in whole) > 10
    streamed = recognize(model, x, LENS, DecodingOptions(method=method, streaming=True))
    assert plain(streamed) == plain(whole)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_an_utterance_does_not_depend_on_its_batch(tiny_model, x, method, streaming):
    model, options = tiny_model("lstm"), DecodingOptions(method=method, streaming=streaming)
    junk = x.clone()
    for row, length in zip(junk, LENS, strict=True):
        row[length:] = 1e4
    alone = [
        recognize(model, row[None, :n], n[None], options)[0] for row, n in zip(x, LENS, strict=True)
    ]
    assert plain(recognize(model, junk, LENS, options)) == plain(alone)


def test_an_offline_encoder_does_not_stream(tiny_model, x):
    model = tiny_model(encoder="asrprune.transducer.conformer:conformer")
    assert recognize(model, x, LENS.clamp(min=20), DecodingOptions())
    with pytest.raises(UserError, match="Conformer is offline"):
        recognize(model, x, LENS, DecodingOptions(streaming=True))


@pytest.mark.parametrize("method", ["greedy_search", "modified_beam_search"])
def test_a_blank_penalty_lowers_the_bias_of_blank(tiny_model, x, method):
    model = tiny_model()
    plainly = recognize(model, x, LENS, DecodingOptions(method=method))
    found = recognize(model, x, LENS, DecodingOptions(method=method, blank_penalty=1.5))
    assert sum(len(h.tokens) for h in found) > sum(len(h.tokens) for h in plainly)
    model.joiner.output.bias[0] -= 1.5
    assert plain(found) == plain(recognize(model, x, LENS, DecodingOptions(method=method)))
