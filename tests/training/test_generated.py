"""Noise looks to a trainer as a corpus does."""

import pytest
import torch
from lhotse import CutSet

from asrprune.data.batches import open_cuts, training_dataset
from asrprune.data.tokenizer import load_tokenizer
from asrprune.training.distributed import Ranks
from asrprune.training.generated import VOCABULARY, generated_batches
from tests.conftest import tiny_config

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_a_batch_has_what_a_corpus_has(tiny_corpus):
    config = tiny_config(tiny_corpus, data_pruning__policy="easy")
    dataset = training_dataset(load_tokenizer(tiny_corpus.lang), config.data, config.seed)
    cuts = open_cuts(tiny_corpus.manifests, "tones", "train")
    genuine = dataset[CutSet.from_cuts(list(cuts)[:3])]
    data, [noise] = generated_batches(config, ALONE, 1)
    for batch in (genuine, noise):
        assert len(batch["features"]) == len(batch["cut_ids"]) == len(batch["token_lens"])
        assert batch["feature_lens"].max() == batch["features"].size(1)
        assert batch["token_lens"].max() == batch["tokens"].size(1)
        assert batch["features"].size(2) == config.model.num_features
    assert noise.keys() == genuine.keys()
    for name, value in genuine.items():
        assert type(noise[name]) is type(value)
        assert getattr(noise[name], "dtype", None) == getattr(value, "dtype", None)
    assert data.sampler.weights_of(noise["cut_ids"]) is None
    assert data.epoch_seconds == data.seconds == pytest.approx(noise["seconds"])


@pytest.mark.parametrize("most", [1.5, 60.0])
def test_batches_are_full_and_of_many_lengths(tiny_corpus, most):
    config = tiny_config(tiny_corpus, data__max_duration=most)
    _, batches = generated_batches(config, ALONE, 20)
    _, again = generated_batches(config, ALONE, 20)
    for one, two in zip(batches, again, strict=True):
        assert one["features"].equal(two["features"]) and one["tokens"].equal(two["tokens"])
    assert all(most - 16 < batch["seconds"] <= most for batch in batches)
    lengths = {batch["features"].size(1) for batch in batches}
    assert len(lengths) > 10 if most == 60 else lengths == {150}
    names = [name for batch in batches for name in batch["cut_ids"]]
    assert len(set(names)) == len(names)
    tokens = torch.cat([batch["tokens"].flatten() for batch in batches])
    assert tokens.min() >= 3 and tokens.max() < VOCABULARY
