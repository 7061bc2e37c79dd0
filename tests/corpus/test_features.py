"""Features are loaded as stored, and what cannot be loaded is blamed on the right cut."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.cut import MonoCut

from asrprune.corpus.batches import open_cuts
from asrprune.corpus.features import load_features
from asrprune.errors import UserError


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
