"""A finished run that trains longer keeps its masks and its losses' weights."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.resume import resume
from tests.languages import LANGUAGES, in_languages
from tests.training.masked_cases import masked_config, trainer_of

SCHEDULE = {"final": 0.9, "start": 0.1, "end": 0.6, "freeze": 0.7, "refresh_interval": 2}
METHODS = {
    "gradual": {},
    "ends at 1": {"schedule": {**SCHEDULE, "end": 1.0, "freeze": 1.0}},
    "supernet": {},
    "sandwich": {"method": "supernet", "supernet": {"sampling": "sandwich"}},
    "pathways": {"schedule": {**SCHEDULE, "initial": 0.5}},
    "pathways that stay": {"method": "pathways", "pathways": {"adapt": False}},
}


@pytest.fixture(scope="module")
def corpus(tiny_corpus, tmp_path_factory) -> SimpleNamespace:
    """The tiny corpus as if it were of three languages."""
    return in_languages(tiny_corpus, tmp_path_factory.mktemp("languages"))


@pytest.fixture
def make(corpus, tiny_corpus, tmp_path):
    """``make(method, **options)``: a trainer in one folder, at its start."""

    def make(method, **options):
        masking = {"schedule": SCHEDULE, **METHODS[method]}
        masking.setdefault("method", "gradual" if method == "ends at 1" else method)
        data, more = tiny_corpus, {"data__dev": [], "training__epochs": 1, "loss__warmup": 1.0}
        more |= {"data__max_duration": 14.0, "training__checkpoint_interval": 1000}
        if masking["method"] == "pathways":
            data, more["data__batches"] = corpus, "monolingual"
        config = masked_config(data, masking, **{**more, **options})
        return trainer_of(config, data, tmp_path / "exp")

    return make


def watched(trainer, steps: int) -> list[dict]:
    """Train on for some steps; the density, the losses' weights and the rate of each."""
    seen, masking = [], trainer.masking
    start_step, loss, take = masking.start_step, one_step.weighted_loss, trainer.step

    def starting(step, progress, language=None):
        start_step(step, progress, language)
        # the sparsest network of the step: of pathways the language's own
        network = language if language in LANGUAGES else masking.sparsest()
        named = {name: masking.bank.density(name) for name in masking.bank.names}
        seen.append(
            {
                "density": masking.bank.density(network),
                "sparsity": masking.sparsity,
                "named": named,
                "rate": trainer.optimizer.param_groups[0]["lr"],
            }
        )
        if masking.options.method == "gradual":
            [applied] = masking.networks(step, 0)
            seen[-1]["density"] = masking.bank.density(applied)

    def losing(caller, batch, progress, *words):
        seen[-1]["progress"] = progress
        return loss(caller, batch, progress, *words)

    def stepping(*words):
        # as if it was interrupted: it saves
        return replace(take(*words), stopped=len(seen) == steps)

    masking.start_step, trainer.step = starting, stepping
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_step, "weighted_loss", losing)
        trainer.run()
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_never_denser_than_it_was(method, make):
    """Six times as long; then its epoch begins again in other batches, and for another rank."""
    first = make(method)
    resume(first)
    assert first.run() == 0
    options, seen = {"training__epochs": 6}, []
    for change in ("epochs", "batches", "ranks"):
        if change == "batches":
            options["data__max_duration"] = 11.0
        elif change == "ranks":
            path = numbered(first.folder, "checkpoint")[-1]
            torch.save({**load_checkpoint(path), "world_size": 2}, path)
        longer = make(method, **options)
        resume(longer)
        assert longer.position.batches == 0
        assert 0.16 < longer.progress.at(longer.elapsed()) < 0.33
        seen += watched(longer, 3)
    assert len(seen) == 9
    densities = [one["density"] for one in seen]
    densities += [density for one in seen for density in one["named"].values()]
    assert max(densities) <= 0.105 and {one["sparsity"] for one in seen} == {0.9}
    # the losses' weights stay at their end, while the rate goes on from the new share
    assert {one["progress"] for one in seen} == {1.0}
    assert all(one["rate"] > 0.5 * longer.options.optimizer.lr for one in seen[1:])
    saved = load_checkpoint(numbered(longer.folder, "checkpoint")[-1])
    assert saved["progress"]["furthest"] == 1.0


def test_an_interrupted_run_waits_where_it_was(make):
    """Told to train longer and in other batches amid the ramp, it is never denser than it was."""
    first = make("gradual", training__epochs=2, data__max_duration=9.0)
    resume(first)
    before = watched(first, 5)
    longer = make("gradual", training__epochs=8, data__max_duration=7.0)
    resume(longer)
    assert longer.position.batches == 0
    after = watched(longer, 12)
    sparsities = [one["sparsity"] for one in before + after]
    assert sparsities == sorted(sparsities) and 0 < sparsities[4] < sparsities[-1] < 0.9
    progress = [one["progress"] for one in before + after]
    assert progress == sorted(progress) and 0.2 < progress[4] == progress[5] < progress[-1]
