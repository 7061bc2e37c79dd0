"""Time dropping: exact shares, feasible lengths, keyed draws, and adapters against indexing."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from asrprune.base.errors import UserError
from asrprune.data_pruning.drop_plan import VARIANTS, plan_drop
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import (
    TimeDropping,
    drop_encoder_frames,
    drop_frames,
    drop_samples,
    frames_of,
)
from asrprune.transducer.subsampling import ConvSubsampling

laws = settings(deadline=None, derandomize=True)
variants = st.sampled_from(VARIANTS)
drop_ratios = st.floats(0, 1, exclude_max=True)
keys = st.tuples(st.integers(0, 5), st.integers(0, 50), st.text(max_size=8))


def dropping(level="frames", active=True, cycle=1, variant="chunk", **options) -> TimeDropping:
    options = TimeDroppingOptions(variant=variant, level=level, **options)
    made = TimeDropping(options, seed=7, subsampling=4)
    made.active, made.cycle = active, cycle
    return made


def normal(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_seed_cycle_and_cut_are_the_key():
    made = dropping(cycle=1)
    other_seed = TimeDropping(made.options, seed=8)
    other_seed.active, other_seed.cycle = True, 1
    plans = [made.plan(600, "a"), made.plan(600, "b"), other_seed.plan(600, "a")]
    plans.append(dropping(cycle=2).plan(600, "a"))
    assert len({tuple(plan.keep.tolist()) for plan in plans}) == 4
    assert torch.equal(dropping(cycle=1).plan(600, "a").keep, plans[0].keep)


class Plans(torch.utils.data.Dataset):
    def __init__(self, dropping: TimeDropping):
        self.dropping = dropping

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.dropping.plan(200 + index, f"cut-{index}", 5).keep


def test_workers_and_pickles_draw_the_same():
    plans = Plans(dropping(cycle=3))
    expected = [plans[i] for i in range(len(plans))]
    copies = Plans(pickle.loads(pickle.dumps(plans.dropping)))
    loader = DataLoader(plans, batch_size=None, num_workers=2)
    for found in (list(loader), [copies[i] for i in range(len(plans))]):
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# Adapters


@laws
@given(st.integers(0, 5000), st.integers(1, 161), drop_ratios, keys, variants)
def test_samples_of_dropped_frames_go(count, hop, drop_ratio, key, variant):
    samples = torch.arange(count, dtype=torch.float32)
    frames = frames_of(count, hop)
    keep = plan_drop(frames, drop_ratio, key, variant=variant, chunk=4).keep
    found = drop_samples(samples, keep, hop)
    bounds = [index * hop for index in range(frames)] + [count]
    oracle = [
        samples[start:end]
        for start, end, kept in zip(bounds, bounds[1:], keep.tolist(), strict=False)
        if kept
    ]
    assert torch.equal(found, torch.cat(oracle) if frames else samples)
    assert frames_of(len(found), hop) == int(keep.sum())  # the features will fit the plan
    assert torch.equal(drop_samples(samples.expand(2, -1), keep, hop), found.expand(2, -1))


def test_frames_of_is_lhotses():
    from lhotse.utils import compute_num_frames_from_samples

    for count in [*range(500), 16000, 16079, 16080, 16081]:
        assert frames_of(count, 160) == compute_num_frames_from_samples(count, 0.01, 16000)


@laws
@given(st.integers(1, 300), drop_ratios, keys, variants)
def test_feature_frames_keep_their_order(length, drop_ratio, key, variant):
    features = torch.arange(length * 3.0).view(length, 3)
    keep = plan_drop(length, drop_ratio, key, variant=variant).keep
    oracle = [row for row, kept in zip(features.tolist(), keep.tolist(), strict=True) if kept]
    assert drop_frames(features, keep).tolist() == oracle


def test_samples_and_features_lose_the_same_times():
    audio = normal(1, 47_000)
    sampled, framed = dropping("samples"), dropping("frames")
    found, clamped = sampled.samples(audio, 160, "a", num_tokens=6)
    keep = framed.plan(frames_of(47_000, 160), "a", num_tokens=6).keep
    assert torch.equal(found, drop_samples(audio, keep, 160)) and not clamped
    features = normal(len(keep), 5)
    assert torch.equal(framed.frames(features, "a", 6)[0], features[keep])


@laws
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.floats(0, 0.9),
    variants,
    st.integers(0, 3),
)
def test_encoder_frames_are_those_of_each_utterance_alone(lengths, drop_ratio, variant, extra):
    made = dropping("encoder", variant=variant, drop_ratio=drop_ratio)
    h = normal(len(lengths), max(lengths) + extra, 4)
    h_lens = torch.tensor(lengths)
    for row, length in zip(h, lengths, strict=True):
        row[length:] = torch.nan  # junk
    ids = [f"cut-{index}" for index in range(len(lengths))]
    least = [length // 2 for length in lengths]
    together, left = made.frame_transform(ids, least)(h, h_lens)
    assert left.dtype == torch.int64 and together.size(1) == left.max()
    for index, length in enumerate(lengths):
        keep = made.plan(length, ids[index], least[index]).keep
        oracle = h[index, :length][keep]
        assert left[index] == len(oracle) == made.length_left(length, ids[index], least[index])
        assert torch.equal(together[index, : left[index]], oracle)
        assert (together[index, left[index] :] == 0).all()
        alone, _ = made.frame_transform([ids[index]], [least[index]])(
            h[index : index + 1, :length], h_lens[index : index + 1]
        )
        assert torch.equal(alone[0], oracle)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_flow_to_kept_frames_only(dtype):
    h = normal(3, 50, 4).to(dtype).requires_grad_()
    h_lens = torch.tensor([50, 13, 31])
    transform = dropping("encoder", drop_ratio=0.5).frame_transform(["a", "b", "c"], [1, 9, 1])
    out, left = transform(h, h_lens)
    weights = normal(*out.shape).to(dtype)
    (out * weights).sum().backward()
    assert out.dtype == h.grad.dtype == dtype
    for index, length in enumerate(h_lens.tolist()):
        keep = transform.dropping.plan(length, "abc"[index], transform.num_tokens[index]).keep
        expected = torch.zeros(50, 4, dtype=dtype)
        expected[:length][keep] = weights[index, : left[index]]
        assert torch.equal(h.grad[index], expected)
    assert left[1] == 13  # 9 frames of 13 must stay: no chunk of 5 may go


def test_gradients_are_numerically_right():
    keeps = [plan_drop(length, 0.4, (0, 0, str(length)), chunk=2).keep for length in (7, 4)]
    h = normal(2, 8, 2).double().requires_grad_()
    h_lens = torch.tensor([7, 4])
    assert torch.autograd.gradcheck(lambda x: drop_encoder_frames(x, h_lens, keeps)[0], h)


def test_after_real_subsampling():
    """The transform between subsampling and layers gives what each utterance gives alone."""
    embed = ConvSubsampling(80, 16, (4, 8), 0.0).eval()
    made = dropping("encoder")
    x, x_lens = normal(3, 210, 80), torch.tensor([200, 123, 61])
    ids, tokens = ["a", "b", "c"], [3, 31, 2]
    with torch.no_grad():
        h, left = made.frame_transform(ids, tokens)(*embed(x, x_lens))
        for index, length in enumerate(x_lens.tolist()):
            alone = embed(x[index : index + 1, :length], x_lens[index : index + 1])
            kept, alone_left = made.frame_transform([ids[index]], [tokens[index]])(*alone)
            assert left[index] == alone_left[0]
            assert torch.allclose(h[index, : left[index]], kept[0], atol=1e-5)
    assert left[1] == 31 and left[0] < 50


def test_the_chunk_option_counts_feature_frames_everywhere():
    assert (
        dropping("frames", chunk_seconds=0.2).chunk
        == dropping("samples", chunk_seconds=0.2).chunk
        == 20
    )
    assert dropping("encoder", chunk_seconds=0.2).chunk == 5
    assert dropping("encoder", chunk_seconds=0.01).chunk == 1


# The switch


def test_inactive_drops_nothing_anywhere():
    features, audio = normal(300, 5), normal(48_000)
    for level in ("samples", "frames", "encoder"):
        off = [dropping(level, active=False), dropping(level, variant="none")]
        off.append(TimeDropping(TimeDroppingOptions(variant="chunk", level=level), 0))  # as made
        for made in off:
            assert made.frames(features, "a") == (features, False)
            assert made.samples(audio, 160, "a") == (audio, False)
            assert made.frame_transform(["a"], [1]) is None
            assert made.length_left(300, "a", 9) == 300 and made.plan(300, "a").keep.all()


@pytest.mark.parametrize("level", ["samples", "frames", "encoder"])
def test_only_the_chosen_place_acts(level):
    made = dropping(level)
    features, audio = normal(300, 5), normal(48_000)
    assert (len(made.frames(features, "a")[0]) < 300) == (level == "frames")
    assert (len(made.samples(audio, 160, "a")[0]) < 48_000) == (level == "samples")
    assert (made.frame_transform(["a"], [1]) is not None) == (level == "encoder")


@laws
@given(st.integers(1, 400), st.integers(1, 200), variants, st.integers(0, 9))
def test_batching_knows_the_length_of_every_adapter(length, least, variant, cycle):
    made = dropping(variant=variant, cycle=cycle)
    found, clamped = made.frames(torch.zeros(length, 2), "a", least)
    assert len(found) == made.length_left(length, "a", least) >= min(length, least)
    assert clamped == made.plan(length, "a", least).clamped
    sampled = dropping("samples", variant=variant, cycle=cycle)
    audio, _ = sampled.samples(torch.zeros(length * 160), 160, "a", least)
    assert frames_of(len(audio), 160) == len(found)


# Bad options


@pytest.mark.parametrize(
    "options",
    [
        {"drop_ratio": 1.0},
        {"drop_ratio": -0.1},
        {"drop_ratio": float("nan")},
        {"chunk_seconds": 0},
        {"start": 0.5, "end": 0.5},
        {"variant": "x"},
        {"level": "x"},
    ],
)
def test_bad_config_is_named(options):
    name, value = next(iter(options.items()))
    with pytest.raises(UserError, match=f"data_pruning.time.{name}={value}"):
        TimeDropping(TimeDroppingOptions(**{"variant": "chunk", **options}), 0)
