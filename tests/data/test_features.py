"""Features are loaded as stored, and what cannot be loaded is blamed on the right cut."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.cut import MonoCut

from asrprune.base.errors import UserError
from asrprune.data.audio import FEATURES
from asrprune.data.batches import open_cuts
from asrprune.data.features import compute_features, load_features


@pytest.fixture
def speech(tiny_corpus) -> MonoCut:
    return next(iter(open_cuts(tiny_corpus.manifests, "tones", "train")))


@pytest.fixture
def noise(tiny_corpus) -> MonoCut:
    return next(iter(CutSet.from_file(tiny_corpus.noise)))


def with_matrix(cut: MonoCut, matrix: np.ndarray) -> MonoCut:
    features = dataclasses.replace(
        cut.features,
        num_features=matrix.shape[1],
        storage_type="memory_raw",
        storage_path="memory",
        storage_key=pickle.dumps(matrix),
    )
    return dataclasses.replace(cut, features=features)


def test_stored_features_become_float32(speech, noise):
    matrix = np.random.default_rng(0).normal(size=(speech.num_frames, 80))
    found = load_features(with_matrix(speech, matrix))
    assert found.dtype == torch.float32
    assert np.array_equal(found.numpy(), matrix.astype(np.float32))
    mixed = load_features(speech.mix(noise, snr=10.0))
    assert mixed.dtype == torch.float32 and mixed.shape[1] == 80


def test_the_cut_at_fault_is_named(speech, noise):
    bare = dataclasses.replace(speech, features=None)
    with pytest.raises(UserError, match=f"cut {speech.id} has no features; the features stage"):
        load_features(bare)
    lost = with_matrix(noise, np.zeros((noise.num_frames, 80)))
    lost.features.storage_key = b"no pickle"
    for mixed in (speech.mix(lost, snr=10.0), lost.mix(speech, snr=10.0)):
        with pytest.raises(UserError, match=f"^cut {noise.id}: .* cannot be read from memory"):
            load_features(mixed)


@pytest.mark.parametrize("seconds", [0.5, -0.5, 3.0, -3.0])
def test_features_of_another_part_are_no_shorter_cut(speech, noise, seconds):
    """Of the utterance, and of noise that is mixed in."""

    def moved(cut):
        features = dataclasses.replace(cut.features, start=cut.features.start + seconds)
        return dataclasses.replace(cut, features=features)

    with pytest.raises(UserError, match=f"^cut {speech.id}: .* frames missing at the start"):
        load_features(moved(speech))
    with pytest.raises(UserError, match=f"^cut {noise.id}: .* frames missing at the start"):
        load_features(speech.mix(moved(noise), snr=10.0))


def test_an_archive_of_fewer_frames_is_no_shorter_cut(speech):
    lost = with_matrix(speech, np.zeros((speech.num_frames - 9, 80)))
    with pytest.raises(UserError, match=f"^cut {speech.id}: .*{speech.num_frames - 9} frames, not"):
        load_features(lost)


def as_it_is(samples: torch.Tensor, hop: int) -> torch.Tensor:
    assert samples.dtype == torch.float32 and samples.ndim == 1 and hop == 160
    return samples


def test_computed_features_are_those_that_are_stored(tiny_corpus):
    for cut in open_cuts(tiny_corpus.manifests, "tones", "train").subset(first=5):
        found = compute_features(cut, as_it_is)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, load_features(cut), rtol=0, atol=0.1)  # lilcom's loss


@pytest.mark.parametrize("change", ["speed", "part"])
def test_computed_features_are_of_the_cut_not_of_its_file(speech, change):
    bare = speech.drop_features()
    cut = bare.perturb_speed(1.1) if change == "speed" else bare.truncate(offset=0.2, duration=0.3)
    expected = torch.from_numpy(cut.compute_features(Fbank(FbankConfig(**FEATURES))))
    torch.testing.assert_close(compute_features(cut, as_it_is), expected)
    assert len(expected) == (cut.num_samples + 80) // 160 < speech.num_frames


def test_computed_features_of_changed_samples(speech, noise):
    """What is between the ends of a cut can go, and noise is mixed in before it does."""

    def halved(samples: torch.Tensor, hop: int) -> torch.Tensor:
        return samples[: len(samples) // hop // 2 * hop]

    whole, half = compute_features(speech, as_it_is), compute_features(speech, halved)
    assert len(half) == speech.num_frames // 2
    torch.testing.assert_close(half[:-2], whole[: len(half) - 2])  # the last window is another
    mixed = speech.mix(noise.truncate(duration=speech.duration), snr=10.0)
    assert len(compute_features(mixed, as_it_is)) == speech.num_frames
    noisy = compute_features(mixed, halved)
    assert noisy.shape == half.shape and torch.isfinite(noisy).all()
    assert not torch.allclose(noisy, half, atol=0.1)
    assert compute_features(speech, lambda samples, hop: samples[:hop]).shape == (1, 80)


def test_audio_that_cannot_be_read_is_one_message(speech):
    sources = [dataclasses.replace(speech.recording.sources[0], source="gone.wav")]
    recording = dataclasses.replace(speech.recording, sources=sources)
    lost = dataclasses.replace(speech, recording=recording)
    with pytest.raises(UserError, match=f"^cut {speech.id}: its audio cannot be read") as caught:
        compute_features(lost, as_it_is)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
