"""The lengths of all cuts at once are those that the adapters leave of each."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asrprune.data_pruning.ids import hash_id
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.options import TimeDroppingOptions
from asrprune.data_pruning.time_dropping import TimeDropping, frames_of

laws = settings(deadline=None, derandomize=True, max_examples=40)
ENCODERS = [lambda x: -(-x // 4), lambda x: (x - 7) // 2, lambda x: ((x - 3) // 4).clamp(min=0)]


def really_left(dropping: TimeDropping, samples: int, name: str, tokens: int) -> int:
    """Frames of the level that an adapter leaves of one cut."""
    frames = frames_of(samples, 160)
    match dropping.options.level:
        case "samples":
            audio, _ = dropping.samples(torch.zeros(samples), 160, name, tokens)
            return frames_of(len(audio), 160)
        case "frames":
            return len(dropping.frames(torch.zeros(frames, 1), name, tokens)[0])
    whole = int(dropping.encoder.of(frames))
    transform = dropping.frame_transform([name], [tokens])
    if not (transform and whole):
        return whole
    return int(transform(torch.zeros(1, whole, 1), torch.tensor([whole]))[1])


@pytest.mark.parametrize("level", ["frames", "samples", "encoder"])
@pytest.mark.parametrize("variant", ["chunk", "point"])
@laws
@given(
    st.lists(st.tuples(st.integers(200, 90_000), st.integers(0, 40)), min_size=1, max_size=6),
    st.floats(0, 0.95),
    st.integers(1, 60),
    st.integers(0, 9),
    st.integers(0, 99),
    st.sampled_from(ENCODERS),
    st.booleans(),
)
def test_the_vector_is_what_each_cut_keeps(
    variant, level, cuts, drop_ratio, chunk, cycle, seed, encoder, active
):
    options = TimeDroppingOptions(
        variant, drop_ratio=drop_ratio, chunk_seconds=chunk / 100, level=level
    )
    dropping = TimeDropping(options, seed, 4, encoder)
    dropping.active, dropping.cycle = active, cycle
    names = [f"cut-{number}_sp0.9" for number in range(len(cuts))]
    samples, tokens = map(np.array, zip(*cuts, strict=True))
    frames = frames_of(samples, 160)
    index = CutIndex(
        np.array([hash_id(name) for name in names], np.uint64),
        samples / 16000,
        num_frames=frames,
        num_tokens=tokens,
    )
    left = [
        really_left(dropping, *cut)
        for cut in zip(samples.tolist(), names, tokens.tolist(), strict=True)
    ]
    whole = dropping.encoder.of(frames) if level == "encoder" else frames
    if active:
        vector = dropping.lengths_left(whole, index.cut_hash, tokens)
        assert vector.tolist() == left
        assert left[0] == dropping.length_left(int(whole[0]), names[0], int(tokens[0]))
    seconds = dropping.seconds_left(index)
    assert seconds.dtype == np.float32 and seconds.shape == (len(cuts),)
    pairs = zip(left, whole.tolist(), strict=True)
    share = [min(1, some / all_of_it) if all_of_it else 1 for some, all_of_it in pairs]
    np.testing.assert_allclose(seconds, index.duration * share, rtol=1e-6)


def test_seconds_come_in_parts_and_leave_the_index_as_it_was(monkeypatch):
    rng = np.random.default_rng(0)
    index = CutIndex(
        rng.integers(0, 2**63, 300, dtype=np.uint64),
        rng.uniform(1, 9, 300),
        num_tokens=rng.integers(0, 90, 300),
    )
    dropping = TimeDropping(TimeDroppingOptions("chunk"), 3, 4)
    durations = index.duration.copy()
    assert np.array_equal(dropping.seconds_left(index), durations)  # inactive
    dropping.active = True
    together = dropping.seconds_left(index)
    assert together.sum() < 0.85 * durations.sum()
    from asrprune.data_pruning import time_dropping

    whole_chunks = time_dropping.chunks
    monkeypatch.setattr(time_dropping, "chunks", lambda count: whole_chunks(count, 7))
    assert np.array_equal(dropping.seconds_left(index), together)
    assert np.array_equal(index.duration, durations)
    dropping.cycle = 1
    assert (dropping.seconds_left(index) != together).mean() > 0.3
    untold = copy.copy(index)
    untold.num_tokens = None
    assert dropping.seconds_left(untold).sum() < dropping.seconds_left(index).sum()


@pytest.mark.parametrize("variant, share", [("chunk", 0.6), ("point", 0.6), ("none", 1)])
def test_the_mean_share_is_what_is_left(variant, share):
    dropping = TimeDropping(TimeDroppingOptions(variant, 0.4, 0.1), 0)
    dropping.active = True
    rng = np.random.default_rng(0)
    index = CutIndex(rng.integers(0, 2**63, 5000, dtype=np.uint64), rng.uniform(5, 15, 5000))
    left = dropping.seconds_left(index).sum() / index.duration.sum()
    assert left == pytest.approx(dropping.mean_share_left, abs=0.01) == share
