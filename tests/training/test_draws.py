"""Draws of an encoder, whatever generator they come from, do not depend on where a run stopped."""

import random

import numpy as np
import pytest
import torch

from asrprune.data import batches, features
from asrprune.data.tokenizer import load_tokenizer
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.search import recognize
from asrprune.search.dev_set import load_dev_set
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from asrprune.training.step import dense_outputs
from tests.training import drawing_encoder
from tests.training.command import assert_same
from tests.training.masked_cases import ALONE, DISTILLATION, SCHEDULE, masked_config, trainer_of

SUPERNET = {"method": "supernet", "schedule": SCHEDULE}
METHODS = {
    "plain": {},
    "distilled": {**SUPERNET, "supernet": {"dense": 0, "distillation": DISTILLATION}},
    "sandwich": {
        **SUPERNET,
        "supernet": {"sampling": "sandwich", "distillation": DISTILLATION},
    },
}


@pytest.fixture
def make(tiny_corpus, tmp_path):
    """``make(folder, method, sources)``: a trainer whose encoder draws, at its start."""

    def make(folder, method="plain", sources="pnt", **options):
        config = masked_config(
            tiny_corpus,
            METHODS[method],
            model__encoder="tests.training.drawing_encoder:drawing",
            model__encoder_options={"sources": sources},
            **{"training__checkpoint_interval": 2, "training__epochs": 1, **options},
        )
        if method != "plain":
            config.weight_pruning.include = ["encoder.layers.*"]
        return trainer_of(config, tiny_corpus, tmp_path / folder)

    return make


class Killed(BaseException):
    """The process ends here."""


def killed(trainer, place: str, step: int, count: int) -> None:
    """Train until, in a step, the encoder has drawn so many times at a place."""
    left = iter(range(count))

    def watch(found: str) -> None:
        if trainer.position.step == step and found == place and next(left, None) is None:
            raise Killed

    drawing_encoder.WATCHERS.append(watch)
    try:
        with pytest.raises(Killed):
            trainer.run()
    finally:
        drawing_encoder.WATCHERS.remove(watch)


def disturb() -> None:
    """Leave the global generators as nobody expects them."""
    random.seed(), np.random.seed(), torch.seed()


@pytest.mark.parametrize("method", METHODS)
def test_killed_amid_a_step(method, make):
    """In a forward pass, in one that is computed again for the gradients, in a backward pass."""
    options = {"data__max_duration": 12.0, "data__dev": []}
    whole = make("whole", method, **options)
    assert whole.run() == 0 and whole.position.step >= 5
    expected = load_checkpoint(numbered(whole.folder, "checkpoint")[-1])
    for place, count in (("forward", 2), ("backward", 0)):
        folder = f"{place} {count}"
        killed(make(folder, method, **options), place, 3, count)
        again = make(folder, method, **options)
        resume(again)
        assert again.position.step == 2
        disturb()
        assert again.run() == 0
        assert_same(load_checkpoint(numbered(again.folder, "checkpoint")[-1]), expected)


@pytest.mark.parametrize("sources", ["p", "n", "t"])
def test_each_generator_alone(sources, make):
    """A step's bits are those of its number; other numbers give other bits."""
    found = []
    for number, step in enumerate((3, 3, 4)):
        trainer = make(f"{sources}{number}", sources=sources)
        trainer.data.start_epoch(1)
        batch = next(trainer.batches())
        trainer.position.step = step
        disturb()
        trainer.step([batch], Meter(ALONE), False)
        found.append(trainer.model.state_dict())
    assert_same(found[0], found[1])
    assert not torch.equal(found[0]["encoder.embed.weight"], found[2]["encoder.embed.weight"])


def test_ranks_draw_differently(make):
    found = []
    for rank in range(2):
        trainer = make(f"rank {rank}")
        trainer.data.start_epoch(1)
        batch = next(trainer.batches())
        trainer.ranks.rank = rank
        try:
            trainer.step([batch], Meter(ALONE), False)
        finally:
            trainer.ranks.rank = 0
        found.append(trainer.model.state_dict()["encoder.embed.weight"])
    assert not torch.equal(*found)


def test_validation_disturbs_nothing_and_is_the_same_each_time(make):
    trainer = make("one")
    disturb()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = trainer.validate()
    assert states[0] == random.getstate() and states[2] == torch.get_rng_state().tolist()
    assert states[1] == np.random.get_state()[1].tolist()
    disturb()
    assert trainer.validate() == first
    # with validations or without, a training comes to the same weights
    with_dev, without = make("with"), make("without", data__dev=[])
    with_dev.run(), without.run()
    assert_same(with_dev.model.state_dict(), without.model.state_dict())


def test_a_teacher_takes_no_draws_from_who_learns(make):
    trainer = make("one", "distilled")
    trainer.data.start_epoch(1)
    batch = next(trainer.batches())
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    dense_outputs(trainer, batch)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_a_models_own_numbers_are_saved(make):
    """An encoder's state may be a plain number; it begins anew with a new model alone."""
    trainer = make("one")
    trainer.run()
    strength = trainer.model.encoder.strength
    assert strength != 1.0
    saved = load_checkpoint(numbered(trainer.folder, "checkpoint")[-1])
    assert saved["module_values"] == [{"encoder": {"strength": strength}}]
    other = make("two")
    other.load_state_dict(saved)
    assert other.model.encoder.strength == strength
    saved["world_size"], saved["module_values"] = 3, [{"encoder": {"strength": 7.0}}, {}, {}]
    third = make("three")
    third.load_state_dict(saved)
    assert third.model.encoder.strength == 7.0


def test_decoding_and_search_draw_the_same(make, tiny_corpus):
    trainer = make("one")
    tokenizer = load_tokenizer(tiny_corpus.lang)
    model = trainer.model.eval()
    dev = load_dev_set(tiny_corpus.manifests, "dev", None, model, trainer.config, tokenizer)
    batch = dev.batches[0]
    losses, scores = [], []
    for _ in range(2):
        disturb()
        losses.append(dev.loss(model))
        disturb()
        words = batch["features"], batch["feature_lens"], DecodingOptions()
        seen = []
        handle = model.encoder.register_forward_hook(lambda *x, seen=seen: seen.append(x[2][0]))
        recognize(model, *words)
        handle.remove()
        scores.append(seen[0])
    assert losses[0] == losses[1] and torch.equal(*scores)


def test_what_is_drawn_while_a_cut_is_read_is_keyed(make, monkeypatch):
    """As by an extractor with dither: by epoch and cut, not by batch or by what came before."""
    load = features.load_features

    def with_dither(cut):
        noise = np.random.rand() + random.random() + torch.rand(()).item()
        return load(cut) + noise

    monkeypatch.setattr(batches, "load_features", with_dither)
    dataset = make("one").data.dataset
    sampler = make("two").data.sampler
    sampler.set_epoch(1)
    cuts = next(iter(sampler))
    turned = type(cuts).from_cuts(list(cuts)[::-1])
    before = random.getstate()
    one, two = dataset[cuts], dataset[turned]
    assert random.getstate() == before
    length = int(one["feature_lens"][0])
    assert torch.equal(one["features"][0, :length], two["features"][-1, :length])
    dataset.epoch = 2
    assert not torch.equal(dataset[cuts]["features"], one["features"])
