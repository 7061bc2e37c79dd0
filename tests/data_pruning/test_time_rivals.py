"""Rivals of time dropping: masks that save nothing, and faster speech that saves as much."""

from math import ceil

import pytest
import torch

from asrprune.data_pruning.drop_plan import plan_drop
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import TimeDropping, drop_frames, frames_of
from asrprune.data_pruning.time_rivals import equal_speed, mask_frames, speed_up
from asrprune.errors import UserError


def normal(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_masks_cover_what_a_drop_removes():
    features = normal(300, 5) + 3
    keep = plan_drop(300, 0.4, (0, 0, "a")).keep
    masked = mask_frames(features, keep)
    assert masked.shape == features.shape
    assert torch.equal(masked[keep], drop_frames(features, keep))
    assert (masked[~keep] == features.mean(dim=0)).all() and int((~keep).sum()) == 120


@pytest.mark.parametrize("drop_ratio", [0.0, 0.07, 0.3, 0.5])
def test_faster_speech_saves_the_same(drop_ratio):
    times = torch.arange(16_000) / 16_000
    tone = torch.sin(2 * torch.pi * 1000 * times)
    fast = speed_up(tone, drop_ratio)
    assert len(fast) == ceil(round(16_000 * (1 - drop_ratio), 6))
    assert len(fast) * equal_speed(drop_ratio) == pytest.approx(16_000)
    pitch = torch.fft.rfft(fast).abs().argmax() * 16_000 / len(fast)
    assert pitch == pytest.approx(1000 * equal_speed(drop_ratio), rel=1e-3)
    assert torch.allclose(speed_up(tone.expand(2, -1), drop_ratio)[1], fast, atol=1e-5)


def test_faster_speech_leaves_what_is_needed():
    audio = normal(16_000)
    for least in range(1, 130, 8):
        assert frames_of(len(speed_up(audio, 0.3, 160, least)), 160) >= min(100, least)
    assert speed_up(audio, 0.3, 160, 100) is audio
    with pytest.raises(UserError, match="drop_ratio=1"):
        speed_up(audio, 1)


def test_masking_is_a_kind_that_saves_nothing():
    masking = TimeDropping(TimeDroppingOptions(variant="mask", drop_ratio=0.4), 3)
    dropping = TimeDropping(TimeDroppingOptions(variant="chunk", drop_ratio=0.4), 3)
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
    speeding = TimeDropping(
        TimeDroppingOptions(variant="speed", drop_ratio=0.3, level="samples"), 3
    )
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


@pytest.mark.parametrize(("variant", "level"), [("mask", "encoder"), ("speed", "frames")])
def test_rivals_have_one_place(variant, level):
    with pytest.raises(UserError, match=f"time.variant={variant} does not work at .*Set .*level="):
        TimeDropping(TimeDroppingOptions(variant=variant, level=level), 1)
