"""Augmentation: what it changes, what it keeps, and that only its key decides."""

import random

import numpy as np
import pytest
import torch
from lhotse import CutSet

from asrprune.base.errors import UserError
from asrprune.cli import main
from asrprune.data.augment import KeyedNoise, KeyedSpecAugment
from asrprune.data.batches import open_cuts, training_dataset
from asrprune.data.options import DataOptions, NoiseOptions, SpecAugmentOptions


@pytest.fixture
def speech(tiny_corpus) -> list:
    return list(open_cuts(tiny_corpus.manifests, "tones", "train"))


def noise_of(corpus, **options) -> KeyedNoise:
    return KeyedNoise(NoiseOptions(cuts=str(corpus.noise), **options), seed=3)


def test_noise_keeps_name_and_length(tiny_corpus, speech):
    noise = noise_of(tiny_corpus, probability=1.0)
    lengths = {cut.duration for cut in noise.cuts}
    assert any(cut.duration < min(lengths) for cut in speech)
    assert any(cut.duration > min(lengths) for cut in speech)
    for epoch in range(4):
        for cut in speech:
            mixed = noise(cut, epoch)
            assert mixed.id == cut.id and mixed.duration == cut.duration
            assert mixed.tracks[1].cut.id in {cut.id for cut in noise.cuts}  # also of a stretch
            clean, features = cut.load_features(), mixed.load_features()
            assert features.shape == clean.shape
            assert np.isfinite(features).all() and not np.array_equal(features, clean)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0])
def test_noise_has_the_ratio_that_was_asked_for(snr, tiny_corpus, speech):
    """Energies of log filter-banks add up: what was added to the clean ones is the noise."""
    noise = noise_of(tiny_corpus, probability=1.0, snr_low=snr, snr_high=snr)
    found = []
    for cut in speech:
        clean = np.exp(cut.load_features().astype(np.float64))
        added = np.exp(noise(cut, 1).load_features().astype(np.float64)) - clean
        found.append(10 * np.log10(clean.sum() / added.sum()))
    assert np.median(found) == pytest.approx(snr, abs=0.5)
    assert np.abs(np.array(found) - snr).max() < 2.0


def test_noise_ratios_fill_their_range(tiny_corpus, speech, monkeypatch):
    noise = noise_of(tiny_corpus, probability=1.0, snr_low=5.0, snr_high=15.0)
    drawn = []
    monkeypatch.setattr(
        type(speech[0]), "mix", lambda self, other, snr, **_: drawn.append(snr) or self
    )
    for epoch in range(20):
        for cut in speech:
            noise(cut, epoch)
    assert 5 <= min(drawn) < 5.5 and 14.5 < max(drawn) <= 15


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_share_of_noisy_cuts(probability, tiny_corpus, speech):
    noise = noise_of(tiny_corpus, probability=probability)
    changed = [noise(cut, epoch) is not cut for cut in speech for epoch in range(20)]
    assert np.mean(changed) == pytest.approx(probability, abs=0.06)


def test_noise_is_decided_by_seed_epoch_and_cut(tiny_corpus, speech):
    def features(epoch, seed=3):
        noise = KeyedNoise(NoiseOptions(cuts=str(tiny_corpus.noise), probability=1.0), seed)
        return np.concatenate([noise(cut, epoch).load_features() for cut in speech[:4]])

    assert np.array_equal(features(1), features(1))
    assert not np.array_equal(features(1), features(2))
    assert not np.array_equal(features(1), features(1, seed=4))


def test_missing_or_empty_noise_is_named(tmp_path):
    with pytest.raises(UserError, match="data.noise.cuts=.*nothing.jsonl.gz does not exist"):
        KeyedNoise(NoiseOptions(cuts=str(tmp_path / "nothing.jsonl.gz")), 0)
    CutSet.from_cuts([]).to_file(tmp_path / "empty.jsonl.gz")
    with pytest.raises(UserError, match="holds no cuts"):
        KeyedNoise(NoiseOptions(cuts=str(tmp_path / "empty.jsonl.gz")), 0)


def test_noise_of_another_kind_is_named(tiny_corpus, speech, tmp_path):
    (noise,) = CutSet.from_file(tiny_corpus.noise).subset(first=1)
    noise.features.num_features = 40
    CutSet.from_cuts([noise]).to_file(tmp_path / "narrow.jsonl.gz")
    options = NoiseOptions(cuts=str(tmp_path / "narrow.jsonl.gz"), probability=1.0)
    with pytest.raises(
        UserError, match=f"{noise.id} of data.noise.cuts=.* into cut {speech[0].id}"
    ):
        KeyedNoise(options, 0)(speech[0], 1)


@pytest.mark.parametrize("low, high", [(20.0, 10.0), (float("nan"), 10.0)])
def test_an_empty_range_of_ratios_is_refused(low, high, tmp_path, capsys):
    """Also by a dry run, and where each of the two would be right without the other."""
    config = tmp_path / "config.yaml"
    config.write_text(f"data: {{noise: {{snr_low: {str(low).replace('nan', '.nan')}}}}}\n")
    words = ["--exp-dir", tmp_path, "--manifest-dir", tmp_path, "--lang-dir", tmp_path]
    words = [
        "train",
        "--config",
        config,
        *words,
        "--dry-run",
        "true",
        f"data.noise.snr_high={high}",
    ]
    assert main([str(word) for word in words]) == 1
    message = f"data.noise.snr_low={low}: must not be above data.noise.snr_high={high}"
    assert message in capsys.readouterr().err


def test_masks_are_decided_by_their_key_alone():
    augment = KeyedSpecAugment(SpecAugmentOptions(probability=1.0), seed=1)
    features = torch.randn(200, 80, generator=torch.Generator().manual_seed(0))
    first = augment(features, 1, "a")
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(augment(features, 1, "a"), first)
    torch.set_rng_state(before[0])
    random.setstate(before[1])
    others = [augment(features, 2, "a"), augment(features, 1, "b")]
    others.append(KeyedSpecAugment(SpecAugmentOptions(probability=1.0), seed=2)(features, 1, "a"))
    for other in others:
        assert other.shape == features.shape and not torch.equal(other, first)
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_masks_stay_within_their_limits():
    options = SpecAugmentOptions(
        probability=1.0, time_warp=0, feature_masks=1, feature_mask_size=5, frame_masks=2,
        frame_mask_size=100, frame_mask_share=0.1,
    )  # fmt: skip
    augment = KeyedSpecAugment(options, seed=0)
    features = torch.randn(300, 80, generator=torch.Generator().manual_seed(0))
    masked = 0
    for index in range(30):
        changed = augment(features, 1, str(index)) != features
        assert changed.all(dim=0).sum() <= 5
        assert changed.all(dim=1).sum() <= 0.1 * 300 + 2
        masked += int(changed.any())
    assert masked > 20


def test_probability_zero_turns_it_off():
    class Tokenizer:
        pass

    off = DataOptions(spec_augment=SpecAugmentOptions(probability=0.0))
    dataset = training_dataset(Tokenizer(), off, 0)
    assert dataset.augment is None and dataset.noise is None
    assert training_dataset(Tokenizer(), DataOptions(), 0).augment is not None
    some = KeyedSpecAugment(SpecAugmentOptions(probability=0.5), seed=0)
    features = torch.randn(100, 80, generator=torch.Generator().manual_seed(0))
    kept = [torch.equal(some(features, 1, str(index)), features) for index in range(100)]
    assert 30 < sum(kept) < 70


@pytest.mark.parametrize(
    "options", [{}, {"frame_masks": 0}, {"frame_mask_share": 0.0}, {"frame_mask_share": 0.5}]
)
def test_utterances_of_any_length_are_augmented(options, speech):
    """Time dropping leaves few frames of a short utterance; lhotse fails where none may go."""
    augment = KeyedSpecAugment(SpecAugmentOptions(probability=1.0, time_warp=0, **options), seed=3)
    whole = torch.from_numpy(speech[0].load_features()) + 1e3  # no row is its mean
    for count in (1, 2, 3, 6, 7, 8, 40):
        changed_bins, changed_rows = 0, 0
        for epoch in range(8):
            found = augment(whole[:count].clone(), epoch, "cut")
            assert found.shape == (count, 80)
            changed = found != whole[:count]
            changed_bins += int(changed.all(dim=0).sum())
            changed_rows += int(changed.all(dim=1).sum())
        assert changed_bins > 0 or count == 1
        share = options.get("frame_mask_share", 0.15) * (options != {"frame_masks": 0})
        assert changed_rows <= 8 * share * count
        assert changed_rows > 0 or count < 40 or not share
