"""The law of encoders, chunks against the whole, and torchaudio as an oracle."""

import pytest
import torch
import torchaudio

from asrprune.base.errors import UserError
from asrprune.transducer.conformer import conformer
from asrprune.transducer.emformer import emformer
from asrprune.transducer.encoder import windows
from asrprune.transducer.rotary import rotary_table, rotate
from asrprune.transducer.streaming_conformer import streaming_conformer

NUM_FEATURES = 10
LENGTHS = list(range(1, 41))
torch.set_num_threads(1)


def small_conformer(**options):
    sizes = {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24, "kernel_size": 7}
    return stirred(conformer(NUM_FEATURES, **{**sizes, "subsampling_channels": (2, 3), **options}))


def small_emformer(**options):
    sizes = {"dim": 16, "num_layers": 3, "num_heads": 2, "ffn_dim": 24, "left_context_length": 6}
    return stirred(emformer(NUM_FEATURES, **{**sizes, **options}))


def small_streaming_conformer(**options):
    sizes = {"dim": 16, "num_layers": 3, "num_heads": 2, "ffn_dim": 24, "kernel_size": 5}
    sizes |= {"chunk_length": 3, "left_context_length": 7, "subsampling_channels": (2, 3)}
    return stirred(streaming_conformer(NUM_FEATURES, **{**sizes, **options}))


def stirred(model):
    """Move every parameter from its start: norms, biases, silent branches hide mistakes there."""
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


MAKERS = {
    "conformer": small_conformer,
    "streaming-conformer": small_streaming_conformer,
    "streaming-conformer-no-past": lambda: small_streaming_conformer(
        left_context_length=0, kernel_size=1
    ),
    "streaming-conformer-long-kernel": lambda: small_streaming_conformer(
        chunk_length=1, kernel_size=9, left_context_length=2
    ),
    "emformer": small_emformer,
    "emformer-wide-lookahead": lambda: small_emformer(segment_length=2, right_context_length=3),
    "emformer-convolution": lambda: small_emformer(kernel_size=5, segment_length=3),
    "emformer-convolution-only": lambda: small_emformer(
        kernel_size=7, segment_length=2, right_context_length=0, left_context_length=0
    ),
    "emformer-convolution-ahead": lambda: small_emformer(
        kernel_size=3, segment_length=2, right_context_length=3
    ),
    "emformer-no-positions": lambda: small_emformer(rotary=False),
    "emformer-no-context": lambda: small_emformer(right_context_length=0, left_context_length=0),
}


@pytest.fixture(params=MAKERS)
def encoder(request):
    torch.manual_seed(1)
    return MAKERS[request.param]().eval()


@pytest.fixture
def utterances():
    torch.manual_seed(2)
    return [torch.randn(length, NUM_FEATURES) for length in LENGTHS]


def batch_of(utterances, size, junk=0.0):
    batch = torch.full((len(utterances), size, NUM_FEATURES), junk)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return batch, torch.tensor([len(u) for u in utterances])


@torch.no_grad()
def test_valid_outputs_depend_on_nothing_but_the_utterance(encoder, utterances):
    alone = [encoder(u[None], torch.tensor([len(u)]))[0][0] for u in utterances]
    for size, junk in ((40, 0.0), (40, 1e4), (41, float("nan")), (97, float("inf"))):
        h, h_lens = encoder(*batch_of(utterances, size, junk))
        assert h.isfinite().all()
        assert h.size(1) == encoder.output_lengths(torch.tensor(size))
        assert h_lens.tolist() == [len(a) for a in alone]
        for row, length, expected in zip(h, h_lens, alone, strict=True):
            torch.testing.assert_close(row[:length], expected, atol=1e-5, rtol=0)
            assert (row[length:] == 0).all()


@torch.no_grad()
def test_every_utterance_has_outputs(encoder):
    lengths = torch.arange(1, 200)
    assert encoder.output_lengths(lengths).equal((lengths + 3) // 4)
    h, h_lens = encoder(torch.randn(2, 8, NUM_FEATURES), torch.tensor([8, 0]))
    assert h.isfinite().all()
    assert h_lens.tolist() == [2, 0]


def test_gradients_of_a_junk_padded_batch_are_finite(encoder, utterances):
    encoder.train()
    x, x_lens = batch_of(utterances, 60, float("nan"))
    h, _ = encoder(x, x_lens)
    (h * torch.randn_like(h)).sum().backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name


@torch.no_grad()
def test_outputs_hear_the_last_frame_and_its_place(encoder):
    x = torch.randn(1, 33, NUM_FEATURES)
    h, _ = encoder(x, torch.tensor([33]))
    x[:, -1] += 1.0
    assert (encoder(x, torch.tensor([33]))[0] - h)[0, -1].abs().max() > 1e-3


@torch.no_grad()
def test_bfloat16_autocast_is_close(encoder, utterances):
    x, x_lens = batch_of(utterances, 40)
    h, _ = encoder(x, x_lens)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = encoder(x, x_lens)
    assert low.isfinite().all()
    assert (low - h).abs().mean() < 0.05


@torch.no_grad()
def test_state_dict_and_functional_call(encoder, utterances):
    x, x_lens = batch_of(utterances, 40)
    h, _ = encoder(x, x_lens)
    doubled = {name: 2 * p for name, p in encoder.named_parameters()}
    changed, _ = torch.func.functional_call(encoder, doubled, (x, x_lens))
    assert not torch.allclose(changed, h)
    encoder.load_state_dict(doubled)
    torch.testing.assert_close(encoder(x, x_lens)[0], changed)
    assert not list(encoder.buffers())


@pytest.mark.parametrize("maker", [small_conformer, small_streaming_conformer, small_emformer])
@torch.no_grad()
def test_an_exporter_can_follow_with_any_batch_and_length(maker):
    encoder = maker(num_layers=1).eval()
    auto = torch.export.Dim.AUTO
    program = torch.export.export(
        encoder,
        (torch.randn(2, 50, NUM_FEATURES), torch.tensor([50, 31])),
        dynamic_shapes={"x": {0: auto, 1: auto}, "x_lens": {0: auto}},
    )
    other = torch.randn(3, 67, NUM_FEATURES), torch.tensor([67, 20, 1])
    torch.testing.assert_close(program.module()(*other), encoder(*other))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "conformer"])
@torch.no_grad()
def test_chunk_by_chunk_equals_the_whole(name, utterances):
    torch.manual_seed(3)
    encoder = MAKERS[name]().eval()
    x, x_lens = batch_of(utterances, 61, float("nan"))
    h, h_lens = encoder(x, x_lens)
    state = encoder.initial_state(len(x), x.device, x.dtype)
    chunks = []
    for window, lens in windows(x, x_lens, encoder.chunk_frames, encoder.lookahead_frames):
        assert lens.max() <= window.size(1) == encoder.chunk_frames + encoder.lookahead_frames
        chunk, state = encoder.forward_chunk(window, state)
        assert chunk.size(1) * encoder.subsampling == encoder.chunk_frames
        chunks.append(chunk)
    streamed = torch.cat(chunks, dim=1)
    assert streamed.size(1) >= h.size(1)
    for row, length, expected in zip(streamed, h_lens, h, strict=True):
        torch.testing.assert_close(row[:length], expected[:length], atol=1e-5, rtol=0)


@pytest.mark.parametrize("maker", [small_streaming_conformer, small_emformer])
@torch.no_grad()
def test_streams_of_different_age_share_a_batch(maker):
    encoder = maker().eval()
    size = encoder.chunk_frames + encoder.lookahead_frames
    first, second = torch.randn(2, 5, 1, size, NUM_FEATURES)
    alone = []
    for stream in (first, second):
        state = encoder.initial_state(1, stream.device, stream.dtype)
        outs = []
        for window in stream:
            out, state = encoder.forward_chunk(window, state)
            outs.append(out)
        alone.append(outs)
    old = encoder.initial_state(1, first.device, first.dtype)
    for window in first[:3]:
        _, old = encoder.forward_chunk(window, old)
    new = encoder.initial_state(1, first.device, first.dtype)
    state = tuple(torch.cat(parts) for parts in zip(old, new, strict=True))
    for step in range(2):
        both, state = encoder.forward_chunk(torch.cat((first[3 + step], second[step])), state)
        torch.testing.assert_close(both[:1], alone[0][3 + step], atol=1e-5, rtol=0)
        torch.testing.assert_close(both[1:], alone[1][step], atol=1e-5, rtol=0)


@torch.no_grad()
def test_emformer_equals_torchaudio_where_that_is_right():
    encoder = small_emformer(rotary=False).eval()
    x = torch.randn(3, 7 * encoder.chunk_frames, NUM_FEATURES)
    x_lens = torch.full((3,), x.size(1))
    h, h_lens = encoder(x, x_lens)
    stacked = torch.nn.functional.pad(x, (0, 0, 0, encoder.lookahead_frames)).unflatten(1, (-1, 4))
    stacked = encoder.input_linear(stacked.flatten(2))
    expected, _ = encoder.emformer(stacked, h_lens)
    torch.testing.assert_close(h, encoder.norm(expected), atol=1e-5, rtol=0)


@torch.no_grad()
def test_conformer_layer_equals_torchaudio_without_positions_and_padding():
    layer = small_conformer().layers[0].eval()
    oracle = torchaudio.models.conformer.ConformerLayer(16, 24, 2, 7).eval()
    oracle.conv_module.sequential[3] = torch.nn.Sequential(
        Transpose(), torch.nn.LayerNorm(16), Transpose()
    )
    oracle.final_layer_norm = torch.nn.Identity()
    weights = {
        name.replace("sequential.3", "sequential.3.1"): p for name, p in layer.state_dict().items()
    }
    oracle.load_state_dict(weights)
    x = torch.randn(2, 9, 16)
    padding = torch.zeros(2, 9, 1, dtype=torch.bool)
    no_turn = (torch.ones(9, 1, 1, 4), torch.zeros(9, 1, 1, 4))
    out = layer(x, padding, ~padding[:, None, None, :, 0], no_turn)
    expected = oracle(x.transpose(0, 1), None).transpose(0, 1)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


class Transpose(torch.nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_rotated_products_depend_on_distance_alone():
    q, k = torch.randn(2, 8).double()
    table = tuple(t.double() for t in rotary_table(torch.arange(20), 8))
    q, k = (rotate(v.expand(1, 20, 1, 1, 8), *table)[0, :, 0, 0] for v in (q, k))
    products = q @ k.T
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
    assert products[0].std() > 0.1


@pytest.mark.parametrize(
    ("maker", "options"),
    [
        (small_conformer, {"kernel_size": 8}),
        (small_conformer, {"dim": 18}),
        (small_conformer, {"num_layers": 0}),
        (small_emformer, {"left_context_length": -1}),
        (small_emformer, {"kernel_size": 4}),
        (small_streaming_conformer, {"kernel_size": 4}),
        (small_streaming_conformer, {"chunk_length": 0}),
        (small_streaming_conformer, {"left_context_length": -1}),
        (small_conformer, {"subsampling_channels": (4,)}),
        (small_emformer, {"dim": 17}),
        (small_emformer, {"segment_length": 0}),
        (small_emformer, {"activation": "tanh"}),
    ],
)
def test_sizes_that_do_not_fit_are_user_errors(maker, options):
    with pytest.raises(UserError):
        maker(**options)


@pytest.mark.parametrize(
    ("factory", "count"),
    [(conformer, 4), (streaming_conformer, 4), (emformer, 2)],
    ids=["conformer", "streaming_conformer", "emformer"],
)
def test_each_feed_forward_module_has_its_width(factory, count):
    sizes = {"dim": 16, "num_layers": 2, "num_heads": 2}
    widths = [8 * (place + 1) for place in range(count)]
    encoder = factory(80, ffn_dim=widths, **sizes)
    channels = encoder.channels()
    assert [encoder.get_parameter(one.rows[0]).shape[0] for one in channels] == widths
    assert [encoder.get_parameter(one.columns[0]).shape[1] for one in channels] == widths
    assert [one.option for one in channels] == ["ffn_dim"] * count
    with torch.random.fork_rng():
        torch.manual_seed(5)
        one = factory(80, ffn_dim=24, **sizes).state_dict()
        torch.manual_seed(5)
        other = factory(80, ffn_dim=[24] * count, **sizes).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for wrong, message in (
        (widths[1:], f"{count - 1} widths for {count} modules"),
        ([0, *widths[1:]], "whole numbers of at least 1"),
        (0, "whole numbers of at least 1"),
        ([2.5, *widths[1:]], "whole numbers of at least 1"),
    ):
        with pytest.raises(UserError, match=message):
            factory(80, ffn_dim=wrong, **sizes)
