"""Time dropping: exact shares, feasible lengths, keyed draws, and adapters against indexing."""

import os
import pickle
import subprocess
import sys
from collections import Counter
from math import ceil

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from asrprune.data_pruning import time_dropping
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import (
    KINDS,
    TimeDropping,
    drop_encoder_frames,
    drop_frames,
    drop_samples,
    equal_speed,
    frames_of,
    length_left,
    mask_frames,
    plan_drop,
    speed_up,
)
from asrprune.errors import UserError
from asrprune.transducer.subsampling import ConvSubsampling

laws = settings(deadline=None, derandomize=True)
kinds = st.sampled_from(KINDS)
rhos = st.floats(0, 1, exclude_max=True)
keys = st.tuples(st.integers(0, 5), st.integers(0, 50), st.text(max_size=8))


def dropping(place="frames", active=True, cycle=1, kind="chunk", **options) -> TimeDropping:
    options = TimeDroppingOptions(kind=kind, place=place, **options)
    made = TimeDropping(options, seed=7, subsampling=4)
    made.active, made.cycle = active, cycle
    return made


def normal(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def runs_of_dropped(keep: torch.Tensor) -> list[tuple[int, int]]:
    """``(start, length)`` of each longest stretch that goes, by hand."""
    runs, start = [], None
    for index, kept in enumerate([*keep.tolist(), True]):
        if kept and start is not None:
            runs.append((start, index - start))
            start = None
        elif not kept and start is None:
            start = index
    return runs


# The draw


@laws
@given(st.integers(0, 400), rhos, keys, kinds, st.integers(1, 90), st.integers(-2, 450))
@example(20, 0.999, (0, 0, ""), "chunk", 20, 1)
@example(41, 0.999, (0, 0, ""), "chunk", 20, 1)
def test_lengths_are_foretold_and_feasible(length, rho, key, kind, chunk, least):
    plan = plan_drop(length, rho, key, kind=kind, chunk=chunk, least=least)
    kept = int(plan.keep.sum())
    assert plan.keep.shape == (length,) and plan.keep.dtype == torch.bool
    assert kept == length_left(length, rho, key, kind=kind, chunk=chunk, least=least)
    assert kept >= min(length, max(1, least))
    free = plan_drop(length, rho, key, kind=kind, chunk=chunk)
    size = chunk if kind == "chunk" else 1
    most = max(0, length - max(1, least)) // size  # that may always go, whichever they are
    if plan.clamped:
        assert sum(not kept for kept in plan.keep[::size]) == most < rho * ceil(length / size)
    elif not free.clamped:
        assert torch.equal(plan.keep, free.keep)


@laws
@given(st.integers(1, 400), rhos, keys, st.integers(1, 90))
def test_whole_chunks_go_as_many_as_asked(length, rho, key, chunk):
    keep, clamped = plan_drop(length, rho, key, kind="chunk", chunk=chunk)
    gone = [not piece[0] for piece in keep.split(chunk)]
    assert all((piece == piece[0]).all() for piece in keep.split(chunk))
    asked = rho * len(gone)
    assert clamped or abs(sum(gone) - asked) < 1


@laws
@given(st.integers(1, 400), rhos, keys)
def test_points_and_spans_go_as_many_as_asked(length, rho, key):
    for kind in ("point", "span"):
        keep, clamped = plan_drop(length, rho, key, kind=kind)
        assert clamped or abs(int((~keep).sum()) - rho * length) < 1
        assert kind == "point" or len(runs_of_dropped(keep)) <= 1
    # a piece of one frame is a point
    assert torch.equal(
        plan_drop(length, rho, key, kind="point").keep, plan_drop(length, rho, key, chunk=1).keep
    )


@pytest.mark.parametrize("twentieths", range(0, 20, 3))
@pytest.mark.parametrize("length, size", [(100, 20), (111, 20), (59, 1), (95, 7), (23, 22)])
def test_expected_share_is_rho_exactly(length, size, twentieths):
    """The mean over both uniform numbers, on a grid finer than every step of the outcome."""
    rho, units = twentieths / 20, ceil(length / size)
    outcomes = [
        time_dropping._counts(length, rho, size, 1, (coin + 0.5) / 20, (place + 0.5) / units)
        for coin in range(20)
        for place in range(units)
    ]
    share = sum(length - outcome.left for outcome in outcomes) / len(outcomes) / length
    if ceil(round(rho * units, 9)) * size < length:
        assert share == pytest.approx(rho, abs=1e-12)
        assert not any(outcome.clamped for outcome in outcomes)
    else:
        assert share < rho and any(outcome.clamped for outcome in outcomes)


@pytest.mark.parametrize("kind, length", [("chunk", 190), ("point", 190), ("span", 190)])
def test_what_is_drawn_has_that_expectation(kind, length):
    """Within 4.5 standard errors, of the deviation that was drawn."""
    left = [length_left(length, 0.33, (0, index, "a"), kind=kind) for index in range(4000)]
    gone = length - torch.tensor(left, dtype=torch.float64)
    assert abs(gone.mean() - 0.33 * length) < 4.5 * gone.std() / len(gone) ** 0.5 + 1e-9


def assert_equally_likely(outcomes: list, number: int) -> None:
    """A chi-square test whose 1e-5 quantile is bounded by Wilson and Hilferty's formula."""
    counts = Counter(outcomes)
    assert len(counts) == number
    expected = len(outcomes) / number
    statistic = sum((count - expected) ** 2 for count in counts.values()) / expected
    freedom = number - 1
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.27 * spread**0.5) ** 3


def test_every_set_of_chunks_is_equally_likely():
    plans = [plan_drop(95, 0.4, (0, i, "a"), chunk=20).keep for i in range(3000)]
    sets = [tuple((~keep[::20]).nonzero().flatten().tolist()) for keep in plans]
    assert_equally_likely(sets, 10)  # 2 of 5


def test_every_place_of_a_span_is_equally_likely():
    plans = [plan_drop(12, 0.25, (0, i, "a"), kind="span").keep for i in range(3000)]
    assert {run[1] for keep in plans for run in runs_of_dropped(keep)} == {3}
    assert_equally_likely([runs_of_dropped(keep)[0][0] for keep in plans], 10)


def test_clamped_is_said():
    asked = [plan_drop(100, 0.5, (0, i, "a"), chunk=20, least=61) for i in range(50)]
    assert all(plan.clamped and int(plan.keep.sum()) == 80 for plan in asked)
    assert not any(plan_drop(100, 0.4, (0, i, "a"), chunk=20, least=60).clamped for i in range(50))
    keep, clamped = plan_drop(10, 0.5, (0, 0, "a"), kind="point", least=11)
    assert clamped and keep.all()
    assert not plan_drop(10, 0.0, (0, 0, "a"), least=11).clamped  # nothing was asked for
    assert plan_drop(50, 0.999, (0, 0, "a"), chunk=10**12).clamped  # one chunk is all there is


# The key


def test_the_key_alone_decides():
    first = plan_drop(600, 0.3, (1, 2, "a"))
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(plan_drop(600, 0.3, (1, 2, "a")).keep, first.keep)
    assert torch.equal(torch.get_rng_state(), before)
    others = [(1, 2, "b"), (1, 3, "a"), (2, 2, "a"), (2, 1, "a"), (1, 2, "a_sp0.9")]
    plans = {tuple(plan_drop(600, 0.3, key).keep.tolist()) for key in [*others, (1, 2, "a")]}
    assert len(plans) == 6


def test_seed_cycle_and_cut_are_the_key():
    made = dropping(cycle=1)
    other_seed = TimeDropping(made.options, seed=8)
    other_seed.active, other_seed.cycle = True, 1
    plans = [made.plan(600, "a"), made.plan(600, "b"), other_seed.plan(600, "a")]
    plans.append(dropping(cycle=2).plan(600, "a"))
    assert len({tuple(plan.keep.tolist()) for plan in plans}) == 4
    assert torch.equal(dropping(cycle=1).plan(600, "a").keep, plans[0].keep)


PROCESS = """
import sys
from asrprune.data_pruning.time_dropping import plan_drop
for kind in ("chunk", "span", "point"):
    for cut in ("a", "b_sp1.1"):
        keep = plan_drop(333, 0.3, (1, 2, cut), kind=kind).keep
        sys.stdout.write("".join("01"[kept] for kept in keep.tolist()) + "\\n")
sys.stdout.write(str("torchaudio" in sys.modules))
"""


def test_another_process_draws_the_same_and_needs_no_torchaudio():
    done = subprocess.run(
        [sys.executable, "-c", PROCESS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=True,
    )
    here = [
        "".join("01"[kept] for kept in plan_drop(333, 0.3, (1, 2, cut), kind=kind).keep.tolist())
        for kind in ("chunk", "span", "point")
        for cut in ("a", "b_sp1.1")
    ]
    assert done.stdout.split() == [*here, "False"]


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
@given(st.integers(0, 5000), st.integers(1, 161), rhos, keys, kinds)
def test_samples_of_dropped_frames_go(count, hop, rho, key, kind):
    samples = torch.arange(count, dtype=torch.float32)
    frames = frames_of(count, hop)
    keep = plan_drop(frames, rho, key, kind=kind, chunk=4).keep
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
@given(st.integers(1, 300), rhos, keys, kinds)
def test_feature_frames_keep_their_order(length, rho, key, kind):
    features = torch.arange(length * 3.0).view(length, 3)
    keep = plan_drop(length, rho, key, kind=kind).keep
    oracle = [row for row, kept in zip(features.tolist(), keep.tolist(), strict=True) if kept]
    assert drop_frames(features, keep).tolist() == oracle


def test_samples_and_features_lose_the_same_times():
    audio = normal(1, 47_000)
    sampled, framed = dropping("samples"), dropping("frames")
    found, clamped = sampled.samples(audio, 160, "a", least=20)
    keep = framed.plan(frames_of(47_000, 160), "a", least=20).keep
    assert torch.equal(found, drop_samples(audio, keep, 160)) and not clamped
    features = normal(len(keep), 5)
    assert torch.equal(framed.frames(features, "a", 20)[0], features[keep])


@laws
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5),
    st.floats(0, 0.9),
    kinds,
    st.integers(0, 3),
)
def test_encoder_frames_are_those_of_each_utterance_alone(lengths, rho, kind, extra):
    made = dropping("encoder", kind=kind, rho=rho)
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
    transform = dropping("encoder", rho=0.5).frame_transform(["a", "b", "c"], [1, 9, 1])
    out, left = transform(h, h_lens)
    weights = normal(*out.shape).to(dtype)
    (out * weights).sum().backward()
    assert out.dtype == h.grad.dtype == dtype
    for index, length in enumerate(h_lens.tolist()):
        keep = transform.dropping.plan(length, "abc"[index], transform.least[index]).keep
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
    assert dropping("frames", chunk=20).chunk == dropping("samples", chunk=20).chunk == 20
    assert dropping("encoder", chunk=20).chunk == 5
    assert dropping("encoder", chunk=1).chunk == 1


# The switch


def test_inactive_drops_nothing_anywhere():
    features, audio = normal(300, 5), normal(48_000)
    for place in ("samples", "frames", "encoder"):
        off = [dropping(place, active=False), dropping(place, kind="none")]
        off.append(TimeDropping(TimeDroppingOptions(kind="chunk", place=place), 0))  # as made
        for made in off:
            assert made.frames(features, "a") == (features, False)
            assert made.samples(audio, 160, "a") == (audio, False)
            assert made.frame_transform(["a"], [1]) is None
            assert made.length_left(300, "a", 9) == 300 and made.plan(300, "a").keep.all()


@pytest.mark.parametrize("place", ["samples", "frames", "encoder"])
def test_only_the_chosen_place_acts(place):
    made = dropping(place)
    features, audio = normal(300, 5), normal(48_000)
    assert (len(made.frames(features, "a")[0]) < 300) == (place == "frames")
    assert (len(made.samples(audio, 160, "a")[0]) < 48_000) == (place == "samples")
    assert (made.frame_transform(["a"], [1]) is not None) == (place == "encoder")


@laws
@given(st.integers(1, 400), st.integers(1, 200), kinds, st.integers(0, 9))
def test_batching_knows_the_length_of_every_adapter(length, least, kind, cycle):
    made = dropping(kind=kind, cycle=cycle)
    found, clamped = made.frames(torch.zeros(length, 2), "a", least)
    assert len(found) == made.length_left(length, "a", least) >= min(length, least)
    assert clamped == made.plan(length, "a", least).clamped
    sampled = dropping("samples", kind=kind, cycle=cycle)
    audio, _ = sampled.samples(torch.zeros(length * 160), 160, "a", least)
    assert frames_of(len(audio), 160) == len(found)


# Bad options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rho": 1.0}, "rho=1.0: "),
        ({"rho": -0.1}, "rho=-0.1: "),
        ({"rho": float("nan")}, "rho=nan: "),
        ({"chunk": 0}, "chunk=0: "),
        ({"kind": "chunks"}, "kind=chunks: .*did you mean 'chunk'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        plan_drop(100, options.pop("rho", 0.3), (0, 0, "a"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"rho": 1.0},
        {"rho": -0.1},
        {"rho": float("nan")},
        {"chunk": 0},
        {"kind": "x"},
        {"place": "x"},
    ],
)
def test_bad_config_is_named(options):
    ((name, value),) = options.items()
    with pytest.raises(UserError, match=f"data_pruning.time.{name}={value}"):
        TimeDropping(TimeDroppingOptions(**{"kind": "chunk", **options}), 0)


# Rivals


def test_masks_cover_what_a_drop_removes():
    features = normal(300, 5) + 3
    keep = plan_drop(300, 0.4, (0, 0, "a")).keep
    masked = mask_frames(features, keep)
    assert masked.shape == features.shape
    assert torch.equal(masked[keep], drop_frames(features, keep))
    assert (masked[~keep] == features.mean(dim=0)).all() and int((~keep).sum()) == 120


@pytest.mark.parametrize("rho", [0.0, 0.07, 0.3, 0.5])
def test_faster_speech_saves_the_same(rho):
    times = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 1000 * times)
    fast = speed_up(tone, rho)
    assert len(fast) == ceil(round(16_000 * (1 - rho), 6))
    assert len(fast) * equal_speed(rho) == pytest.approx(16_000)
    pitch = torch.fft.rfft(fast).abs().argmax() * 16_000 / len(fast)
    assert pitch == pytest.approx(1000 * equal_speed(rho), rel=1e-3)
    assert torch.allclose(speed_up(tone.expand(2, -1), rho)[1], fast, atol=1e-5)


def test_faster_speech_leaves_what_is_needed():
    audio = normal(16_000)
    for least in range(1, 130, 8):
        assert frames_of(len(speed_up(audio, 0.3, 160, least)), 160) >= min(100, least)
    assert speed_up(audio, 0.3, 160, 100) is audio
    with pytest.raises(UserError, match="rho=1"):
        speed_up(audio, 1)


def test_masking_is_a_kind_that_saves_nothing():
    masking = TimeDropping(TimeDroppingOptions(kind="mask", rho=0.4), 3)
    dropping = TimeDropping(TimeDroppingOptions(kind="chunk", rho=0.4), 3)
    masking.active = dropping.active = True
    features = torch.randn(200, 4)
    masked, _ = masking.frames(features, "cut")
    keep = dropping.plan(200, "cut").keep
    assert masked.shape == features.shape and masking.length_left(200, "cut") == 200
    torch.testing.assert_close(masked[keep], dropping.frames(features, "cut")[0])
    torch.testing.assert_close(masked[~keep], features.mean(0).expand(int((~keep).sum()), 4))


@pytest.mark.parametrize("seconds", [0.5, 3.0, 7.77])
@pytest.mark.parametrize("least", [1, 45])
def test_speed_is_a_kind_that_saves_alike(seconds, least):
    speeding = TimeDropping(TimeDroppingOptions(kind="speed", rho=0.3, place="samples"), 3)
    speeding.active = True
    samples = torch.randn(round(16000 * seconds))
    length = frames_of(len(samples), 160)
    faster, clamped = speeding.samples(samples, 160, "cut", least)
    found = frames_of(len(faster), 160)
    assert abs(found - speeding.length_left(length, "cut", least)) <= 1
    assert found >= min(least, length) and clamped == (0.7 * length < least)
    assert clamped or abs(found - 0.7 * length) <= 1
    speeding.active = False
    assert speeding.samples(samples, 160, "cut", least)[0] is samples


@pytest.mark.parametrize(("kind", "place"), [("mask", "encoder"), ("speed", "frames")])
def test_rivals_have_one_place(kind, place):
    with pytest.raises(UserError, match=f"data_pruning.time.kind={kind} works at .*alone"):
        TimeDropping(TimeDroppingOptions(kind=kind, place=place), 1)
