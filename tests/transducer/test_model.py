"""The assembled transducer: factories and their messages, normalisation, loss, streaming."""

import math
import sys

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.transducer.encoder import windows
from asrprune.transducer.model import BLANK_PRIOR, build_model
from asrprune.transducer.options import LossOptions, ModelOptions

NUM_FEATURES, VOCAB = 10, 13
torch.set_num_threads(1)
CONFORMER = {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24, "kernel_size": 7}
EMFORMER = {"dim": 16, "num_layers": 2, "num_heads": 2, "ffn_dim": 24}


@pytest.fixture(autouse=True)
def tiny_module(monkeypatch, request):
    """``tiny_encoder`` beside this file, as a user's module on the Python path."""
    monkeypatch.syspath_prepend(str(request.path.parent))
    yield
    sys.modules.pop("tiny_encoder", None)


def make(encoder="asrprune.transducer.conformer:conformer", options=None, **model):
    torch.manual_seed(0)
    options = CONFORMER if options is None else options
    model = {
        "predictor_options": {"dim": 12},
        "num_features": NUM_FEATURES,
        "joiner_dim": 20,
        **model,
    }
    return build_model(
        ModelOptions(encoder=encoder, encoder_options=options, **model), LossOptions(), VOCAB
    )


def a_batch():
    torch.manual_seed(1)
    x = torch.randn(3, 90, NUM_FEATURES)
    y = torch.randint(1, VOCAB, (3, 6))
    y_lens = torch.tensor([6, 3, 0])
    y = y.masked_fill(torch.arange(6) >= y_lens[:, None], 0)
    return x, torch.tensor([90, 71, 33]), y, y_lens


PARTS = [
    ("asrprune.transducer.conformer:conformer", CONFORMER, "stateless"),
    ("asrprune.transducer.emformer:emformer", EMFORMER, "lstm"),
    ("tiny_encoder:Skipper", {"width": 6, "scale": 2}, "stateless"),
]


@pytest.mark.parametrize(("encoder", "options", "predictor"), PARTS)
def test_losses_start_near_chance_and_train(encoder, options, predictor):
    model = make(encoder, options, predictor=f"asrprune.transducer.predictor:{predictor}")
    x, x_lens, y, y_lens = a_batch()
    t_lens = model.encoder.output_lengths(x_lens)
    losses = model(x, x_lens, y, y_lens)
    for loss in losses:
        assert loss.shape == (3,)
        assert loss.dtype == torch.float32
        for value, t, s in zip(loss.tolist(), t_lens.tolist(), y_lens.tolist(), strict=True):
            # T blanks at their prior, S symbols that share the rest, on C(T - 1 + S, S) paths
            symbol = (1 - BLANK_PRIOR) / (VOCAB - 1)
            path = t * math.log(BLANK_PRIOR) + s * math.log(symbol)
            chance = -path - math.log(math.comb(t - 1 + s, s))
            assert abs(value - chance) < 0.25 * chance
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = None
    for _ in range(12):
        optimizer.zero_grad()
        total = sum(loss.sum() for loss in model(x, x_lens, y, y_lens))
        total.backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name
        optimizer.step()
        first = first or total.item()
    assert total.item() < 0.9 * first


def test_losses_are_each_utterance_s_own():
    model = make().eval()
    x, x_lens, y, y_lens = a_batch()
    x[1, 71:] = float("nan")
    together = model(x, x_lens, y, y_lens)
    for i in range(3):
        one = slice(i, i + 1)
        t, s = int(x_lens[i]), int(y_lens[i])
        alone = model(x[one, :t], x_lens[one], y[one, :s], y_lens[one])
        torch.testing.assert_close(together.simple[one], alone.simple, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.pruned[one], alone.pruned, rtol=1e-4, atol=1e-4)


def test_losses_under_autocast_are_float32_and_close():
    model = make().eval()
    batch = a_batch()
    exact = model(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(*batch)
    for a, b in zip(low, exact, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.5)


@torch.no_grad()
def test_any_encoder_is_given_zeros_past_the_end():
    model = make("tiny_encoder:Skipper", {})
    model.feature_mean.fill_(3.0)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x, x_lens, *_ = a_batch()
    x[2, 33:] = float("nan")
    model.encode(x, x_lens)
    assert (seen[0][2, 33:] == 0).all()
    torch.testing.assert_close(seen[0][0], x[0] - 3.0)


@torch.no_grad()
def test_normalisation_is_inside_the_model():
    model = make().eval()
    x, x_lens, *_ = a_batch()
    h, h_lens = model.encode(x, x_lens)
    mean, std = torch.randn(NUM_FEATURES), torch.rand(NUM_FEATURES) + 0.5
    model.feature_mean.copy_(mean)
    model.feature_std.copy_(std)
    again, again_lens = model.encode(x * std + mean, x_lens)
    torch.testing.assert_close(again, h, atol=1e-4, rtol=0)
    assert again_lens.equal(h_lens)
    assert "feature_mean" in model.state_dict()


@torch.no_grad()
def test_streaming_equals_the_whole_with_normalisation():
    model = make("asrprune.transducer.emformer:emformer", EMFORMER).eval()
    model.feature_mean.fill_(3.0)
    model.feature_std.fill_(0.5)
    x, x_lens, *_ = a_batch()
    h, h_lens = model.encode(x, x_lens)
    encoder = model.encoder
    state = encoder.initial_state(3, x.device, x.dtype)
    chunks = []
    for window, lens in windows(x, x_lens, encoder.chunk_frames, encoder.lookahead_frames):
        chunk, state = model.encode_chunk(window, state, lens)
        chunks.append(chunk)
    streamed = torch.cat(chunks, dim=1)
    for row, length, expected in zip(streamed, h_lens, h, strict=True):
        torch.testing.assert_close(row[:length], expected[:length], atol=1e-5, rtol=0)


@torch.no_grad()
def test_state_dict_makes_the_same_model():
    model = make().eval()
    model.feature_mean.normal_()
    torch.manual_seed(5)
    other = make(joiner_dim=20).eval()
    for p in other.parameters():
        p.normal_()
    other.load_state_dict(model.state_dict())
    batch = a_batch()
    for a, b in zip(model(*batch), other(*batch), strict=True):
        assert a.equal(b)


def test_functional_call_sees_only_the_given_weights():
    model = make().eval()
    batch = a_batch()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    expected = model(*batch)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    given = torch.func.functional_call(model, weights, batch)
    assert given.pruned.equal(expected.pruned)
    assert given.simple.equal(expected.simple)


@pytest.mark.parametrize(
    ("encoder", "options", "words"),
    [
        ("asrprune.transducer.conformer:conformer", {"num_layer": 3}, ("num_layer", "num_layers")),
        ("asrprune.transducer.conformer:conformr", {}, ("conformr", "'conformer'")),
        ("asrprune.transducer.conformr:conformer", {}, ("asrprune.transducer.conformr",)),
        ("no_such_package.encoder:thing", {}, ("no_such_package",)),
        ("conformer", {}, ("package.module:callable",)),
        ("asrprune.transducer.conformer:conformer", {"dim": "256"}, ("dim", "'256'", "int")),
        ("asrprune.transducer.conformer:conformer", {"num_layers": 2.5}, ("num_layers", "int")),
        ("asrprune.transducer.conformer:conformer", {"dim": True}, ("dim", "int")),
        (
            "asrprune.transducer.conformer:conformer",
            {"subsampling_channels": 8},
            ("subsampling_channels", "list"),
        ),
        ("asrprune.transducer.conformer:conformer", {"num_layers": 0}, ("num_layers",)),
        ("tiny_encoder:Skipper", {"scale": "big"}, ("scale", "float")),
        ("tiny_encoder:Skipper", {"num_features": 3}, ("num_features", "width, scale")),
        ("tiny_encoder:no_encoder", {}, ("tiny_encoder:no_encoder", "output_dim")),
        (
            "tiny_encoder:passing_on",
            {"wdith": 4},
            ("encoder_options", "tiny_encoder:passing_on", "unexpected keyword argument 'wdith'"),
        ),
        ("tiny_encoder:passing_on", {"num_features": 4}, ("encoder_options", "multiple values")),
        ("tiny_encoder:without_arguments", {}, ("tiny_encoder:without_arguments", "positional")),
        (".tiny_encoder:Skipper", {}, ("package.module:callable",)),
    ],
)
def test_a_bad_encoder_is_named_with_the_way_out(encoder, options, words):
    with pytest.raises(UserError) as caught:
        make(encoder, options)
    for word in words:
        assert word in str(caught.value)


def test_a_defect_inside_a_factory_is_shown_as_it_is():
    """A TypeError that no option can have caused keeps its traceback; else it is the cause."""
    with pytest.raises(TypeError, match="defect"):
        make("tiny_encoder:defective", {})
    with pytest.raises(
        UserError, match="tiny_encoder:defective passes on a, b, .*defect"
    ) as caught:
        make("tiny_encoder:defective", {"a": 1, "b": 2})
    assert isinstance(caught.value.__cause__, TypeError)
    make("tiny_encoder:passing_on", {"width": 4})


def test_a_missing_import_inside_a_user_s_module_is_shown_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken_encoder.py").write_text("import there_is_no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_module"):
        make("broken_encoder:encoder", {})


def test_a_bad_predictor_option_names_the_predictor():
    with pytest.raises(UserError, match="predictor_options.context.*context_size"):
        make(predictor_options={"context": 2})
