"""Pathways while training: what a step of a language moves, when its mask is made anew."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import start_ranks
from asrprune.training.metrics import Meter
from asrprune.training.pruning import TrainingData
from asrprune.training.resume import resume
from tests.languages import LANGUAGES, in_languages
from tests.training.command import assert_same, on_ranks, shake
from tests.training.masked_cases import ALONE, masked_config, trainer_of

ALIKE = "magnitudes are of all weights, so masks that are renewed at one time are one mask for all"
SCHEDULE = {"initial": 0.5, "final": 0.7, "start": 0.1, "end": 0.6, "freeze": 0.8}
METHODS = {
    "dynamic": {},
    "all": {"grad": "all"},
    "fixed": {"adapt": False},
    "capped": {"max_union_density": 0.55},
    "sensitivity": {"renewal": "sensitivity"},
    "regrown": {"renewal": "regrow", "exchange": 0.3},
}


def masking(**options):
    schedule = {**SCHEDULE, "refresh_interval": 4}
    return {"method": "pathways", "schedule": schedule, "pathways": options}


@pytest.fixture(scope="module")
def corpus(tiny_corpus, tmp_path_factory) -> SimpleNamespace:
    """The tiny corpus as if it were of three languages."""
    return in_languages(tiny_corpus, tmp_path_factory.mktemp("languages"))


@pytest.fixture
def make(corpus, tmp_path):
    """``make(folder, options of pathways, **options)``: a trainer at its start."""

    def make(folder, pathways=None, ranks=ALONE, **options):
        more = {
            "data__batches": "monolingual",
            "data__dev": [f"dev-{language}" for language in LANGUAGES],
            "data__max_duration": 4.0,
            **options,
        }
        pruning = more.pop("weight_pruning", masking(**(pathways or {})))
        config = masked_config(corpus, pruning, **more)
        return trainer_of(config, corpus, tmp_path / folder, ranks)

    return make


@pytest.mark.parametrize("method", METHODS)
def test_resume_after_any_step(method, make):
    """With data pruning on, inside of each language."""
    pruning = {"policy": "easy2hard", "keep": 0.6, "anneal": 0.34, "stratify_by": "language"}
    options = {"data_pruning": pruning, "training__epochs": 3}
    trainer = make("whole", METHODS[method], **options)
    resume(trainer)
    assert trainer.run() == 0
    last, *earlier = reversed(numbered(trainer.folder, "checkpoint"))
    assert len(earlier) >= 25
    expected = load_checkpoint(last)
    assert set(expected["masking"]["bank"]["named"]) == set(LANGUAGES)
    for path in earlier[list(METHODS).index(method) :: 8]:  # each method from other steps
        part = make(path.stem, METHODS[method], **options)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), expected)


@pytest.mark.parametrize("renewal", ["regrow", "sensitivity"])
def test_resume_with_channels(renewal, make):
    """Gradient sums are those of groups, not of parameters. At the end, channels are cut out."""
    options = {"weight_pruning": {**masking(renewal=renewal), "unit": "channel", "multiple": 2}}
    trainer = make("whole", **options)
    resume(trainer)
    assert trainer.masking.all_gradients
    assert trainer.run() == 0
    assert not trainer.masking.all_gradients
    last, *earlier = reversed(numbered(trainer.folder, "checkpoint"))
    states = [load_checkpoint(path)["masking"]["gradient_sums"] for path in earlier]
    number = next(place for place, sums in enumerate(states) if sums and place > 3)
    assert "encoder.layers.0.ffn1" in next(iter(states[number].values()))
    for path in (earlier[number], earlier[0]):
        part = make(path.stem, **options)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), load_checkpoint(last))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_moves_its_own_pathway(method, accumulate, make):
    trainer = make("exp", METHODS[method], training__grad_accumulation=accumulate)
    trainer.begin()
    trainer.data.start_epoch(1)
    batches, bank, masks = list(trainer.batches()), trainer.masking.bank, {}
    moved, own = 0, dict.fromkeys(LANGUAGES, 0)
    state = trainer.optimizer.state
    for step in range(len(batches) // accumulate):
        language = trainer.data.language(1, step * accumulate)
        parameters = bank.parameters()
        before = {name: p.detach().clone() for name, p in parameters.items()}
        moments = {n: {k: v.clone() for k, v in state[p].items()} for n, p in parameters.items()}
        part = batches[step * accumulate : (step + 1) * accumulate]
        ids = {trainer.data.sampler.index.language_of(name) for b in part for name in b["cut_ids"]}
        assert [trainer.data.languages[number] for number in ids] == [language]
        trainer.step(part, Meter(ALONE), False)
        renewed = own[language] % 4 == 0 if method != "fixed" else own[language] == 0
        assert renewed == (masks.get(language) is None or bool(trainer.masking.mask_events))
        own[language] += 1
        if renewed:
            sparsity = SCHEDULE["final"] if method == "fixed" else trainer.masking.sparsity
            wanted = bank.blocks(sparsity)
            for name, blocks in bank.blocks(language).items():
                assert blocks.sum() == wanted[name].sum()
        else:
            assert_same(bank.blocks(language), masks[language])
        for other in set(masks) - {language}:
            assert_same(bank.blocks(other), masks[other])
        masks[language] = bank.blocks(language)
        for name, kept in bank.masks(language).items():
            changed = parameters[name] != before[name]
            moved += int(changed.sum())
            if method == "all":
                continue
            assert not changed[~kept].any()
            for key in ("exp_avg", "exp_avg_sq"):
                now = state[parameters[name]][key]
                then = moments[name].get(key, torch.zeros_like(now))
                assert torch.equal(now[~kept], then[~kept])
    assert moved and min(own.values()) > 0 and max(own.values()) > 1
    if method == "all":  # what no mask of the language keeps has moved with its steps
        parameters, masked = bank.parameters(), bank.masks("cy")
        assert any(state[parameters[n]]["exp_avg"][~kept].any() for n, kept in masked.items())


def masks_of_their_own(bank, density=0.3) -> dict[str, dict[str, torch.Tensor]]:
    """Give each language a mask drawn at random; any two overlap about as chance has it."""
    generator = torch.Generator().manual_seed(5)
    for language in LANGUAGES:
        blocks = {
            name: torch.rand(kept.shape, generator=generator) < density
            for name, kept in bank.blocks(0.0).items()
        }
        bank.name(language, blocks)
    for one, other in (("en", "fr"), ("fr", "cy"), ("en", "cy")):
        assert bank.overlap(one, other) == pytest.approx(density / (2 - density), abs=0.08)
    return {language: bank.masks(language) for language in LANGUAGES}


@pytest.mark.parametrize("method", ["fixed", "dynamic", "sensitivity"])
def test_a_step_computes_and_moves_by_its_own_mask(method, make, monkeypatch):
    """Where masks differ: with one mask for all, any language's would pass for another's."""
    still = {f"model__encoder_options__{kind}": 0.0 for kind in ("dropout", "attention_dropout")}
    trainer = make("exp", METHODS[method], training__optimizer__clip_norm=0, **still)
    shake(trainer.model)
    trainer.begin()
    masks = masks_of_their_own(trainer.masking.bank)
    trainer.data.start_epoch(1)
    losses, loss, done = [], one_step.weighted_loss, set()

    def spy(*words):
        result = loss(*words)
        losses.append(result[1].pruned.detach())
        return result

    monkeypatch.setattr(one_step, "weighted_loss", spy)
    for step, batch in enumerate(trainer.batches()):
        language = trainer.data.language(1, step)
        if trainer.masking.steps[language] == 4:
            break  # the first renewal of a mask that adapts
        before = {
            name: value.detach().clone()
            for name, value in trainer.masking.bank.parameters().items()
        }
        by_name = {}
        for name in LANGUAGES:
            with torch.no_grad(), trainer.masking.bank.apply(name):
                by_name[name] = loss(trainer, batch, 0.5, Meter(ALONE))[1].pruned
        trainer.step([batch], Meter(ALONE), False)
        for name, found in by_name.items():
            assert torch.allclose(losses[-1], found, rtol=1e-5) == (name == language)
        for name, weight in trainer.masking.bank.parameters().items():
            moved = weight != before[name]
            assert not moved[~masks[language][name]].any()
            assert moved[masks[language][name]].float().mean() > 0.5
        done.add(language)
    assert done == set(LANGUAGES)


@pytest.mark.parametrize(
    "score",
    [
        pytest.param("magnitude", marks=pytest.mark.xfail(strict=True, reason=ALIKE)),
        "sensitivity",
    ],
)
def test_languages_have_masks_of_their_own(score, make):
    """Not one mask, made anew at other times: these are made at one time, where they settle."""
    pruning = masking(renewal=score)
    pruning["schedule"]["refresh_interval"] = 1000
    trainer = make("exp", weight_pruning=pruning, data__dev=[])
    resume(trainer)
    assert trainer.run() == 0
    bank = trainer.masking.bank
    overlaps = [bank.overlap(*pair) for pair in (("en", "fr"), ("fr", "cy"), ("en", "cy"))]
    assert all(bank.density(language) == pytest.approx(0.3, abs=0.02) for language in LANGUAGES)
    assert max(overlaps) < 0.9


def test_masks_that_adapt_come_to_the_schedules_sparsity(make):
    trainer = make("exp", training__epochs=4)
    resume(trainer)
    assert trainer.run() == 0
    lines = (trainer.folder / "log" / "metrics.jsonl").read_text().splitlines()
    news = [line for line in map(json.loads, lines) if line["kind"].startswith("pathway-")]
    assert {line["kind"] for line in news} == {f"pathway-{language}" for language in LANGUAGES}
    for language in LANGUAGES:
        own = [line for line in news if line["kind"] == f"pathway-{language}"]
        assert own[0]["changed"] == 1
        assert len(own) > 2 and any(0 < line["changed"] < 1 for line in own[1:])
        assert 0.29 < own[-1]["density"] < 0.42 < own[0]["density"] < 0.52
        assert trainer.masking.bank.density(language) == own[-1]["density"]
    assert all(0.3 <= line["union"] <= 1 for line in news)
    dev = [line for line in map(json.loads, lines) if line["kind"] == "dev"]
    assert set(dev[-1]) - {"kind", "step"} == {f"dev-{language}" for language in LANGUAGES}


CHANNELS = {"unit": "channel", "multiple": 1}


@pytest.mark.parametrize("unit", [{}, CHANNELS], ids=["block", "channel"])
@pytest.mark.parametrize("renewal", ["regrow", "magnitude"])
def test_masks_of_different_languages_stay_apart(renewal, unit, make):
    """By magnitude of all weights they are one mask after a renewal each."""
    pruning = {**masking(renewal=renewal), **unit}
    options = {"model__encoder_options__ffn_dim": 512} if unit else {}
    trainer = make("exp", weight_pruning=pruning, data__dev=[], training__epochs=3, **options)
    resume(trainer)
    bank = trainer.masking.bank
    masks_of_their_own(bank, 0.5)
    assert trainer.run() == 0
    assert all(steps > 4 for steps in trainer.masking.steps.values())
    overlaps = [bank.overlap(*pair) for pair in (("en", "fr"), ("fr", "cy"), ("en", "cy"))]
    assert all(bank.density(language) == pytest.approx(0.3, abs=0.02) for language in LANGUAGES)
    assert max(overlaps) < 0.45 if renewal == "regrow" else min(overlaps) > 0.9


PARTS = {
    "block": ({}, 0.3, {}),
    "channel": (CHANNELS, 0.3, {"ffn_dim": 512}),
    "head": ({"unit": "head"}, 0.8, {"num_heads": 16, "dim": 32}),
}


@pytest.mark.parametrize("unit", PARTS)
def test_one_mask_for_all_parts_into_languages(unit, make):
    """Languages that begin with one mask exchange what their own gradients ask for."""
    more, exchange, sizes = PARTS[unit]
    pruning = {**masking(renewal="regrow", exchange=exchange), **more}
    options = {f"model__encoder_options__{name}": size for name, size in sizes.items()}
    trainer = make("exp", weight_pruning=pruning, data__dev=[], training__epochs=3, **options)
    resume(trainer)
    bank = trainer.masking.bank
    for language in LANGUAGES:
        bank.name(language, 0.5)
    assert trainer.run() == 0
    overlaps = [bank.overlap(*pair) for pair in (("en", "fr"), ("fr", "cy"), ("en", "cy"))]
    assert max(overlaps) < 0.9


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"unit": "layer"}, "is for weight_pruning.unit=block, channel or head"),
        ({"scope": "global"}, "weight_pruning.scope=global does not"),
        ({"block": "2:4"}, "weight_pruning.block=2:4 does not"),
        ({"pathways": {"renewal": "regrow", "adapt": False}}, "is for masks that adapt"),
        ({"pathways": {"exchange": 0.3}}, "exchange=0.3: is for .*renewal=regrow"),
    ],
)
def test_what_cannot_be_regrown(changed, message, make):
    with pytest.raises(UserError, match=message):
        make("exp", weight_pruning={**masking(renewal="regrow"), **changed})


CONSTANT = {"kind": "constant", "start": 0.3, "end": 0.9, "freeze": 0.3}


@pytest.mark.parametrize(
    "score, changed",
    [
        ("magnitude", {}),
        ("magnitude", {"refresh_interval": 1000}),
        ("sensitivity", {"refresh_interval": 1000, "freeze": 0.6}),
        ("sensitivity", {"refresh_interval": 1000, "freeze": 1.0}),
        ("sensitivity", {"end": 1.0, "freeze": 1.0}),
        ("magnitude", CONSTANT),
        ("magnitude", {**CONSTANT, "start": 0.0, "freeze": 0.0}),
    ],
)
def test_a_mask_is_as_sparse_as_the_schedule_says(score, changed, make):
    """When it is made; from where masks stand still, and in the end, all have the final sparsity.

    Where no interval comes to its end, too.
    """
    schedule = {**SCHEDULE, "refresh_interval": 4, **changed}
    options = {
        "weight_pruning": {
            "method": "pathways",
            "schedule": schedule,
            "pathways": {"renewal": score},
        },
        "data__dev": [],
    }
    trainer = make("exp", **options)
    masking, bank = trainer.masking, trainer.masking.bank
    start_step, made = masking.start_step, {language: [] for language in LANGUAGES}

    def watched(step, progress, language):
        start_step(step, progress, language)
        for name in masking.mask_events:
            name = name.removeprefix("pathway-")
            made[name].append(progress)
            wanted = 1 - brute_force_sparsity(progress, schedule)
            assert bank.density(name) == pytest.approx(wanted, abs=0.02)
        if progress >= schedule["freeze"]:
            for name in bank.names:
                assert bank.density(name) == pytest.approx(0.3, abs=0.02)

    masking.start_step = watched
    resume(trainer)
    assert trainer.run() == 0
    for language, times in made.items():
        if schedule["refresh_interval"] == 1000 and schedule["freeze"] < 1:
            first, last = times
            assert first < 0.3 and schedule["freeze"] <= last < schedule["freeze"] + 0.1, times
        assert bank.density(language) == pytest.approx(0.3, abs=0.02)
        told = load_checkpoint(trainer.folder / "epoch-2.pt")["masking"]["bank"]["named"][language]
        assert torch.equal(told, bank.state_dict()["named"][language])
    if score == "sensitivity" and schedule["refresh_interval"] == 1000:
        path = numbered(trainer.folder, "checkpoint")[-6]
        again = make("again", **options)
        torch.save(load_checkpoint(path), again.folder / path.name)
        resume(again)
        assert again.run() == 0
        assert_same(again.state_dict(), trainer.state_dict())


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"freeze": 0.0}, "freeze=0: pathways would freeze before .* at .*schedule.end=0.6. Set"),
        ({"freeze": 0.5}, "freeze=0.5: .*to at least 0.6, or weight_pruning.pathways.adapt=false"),
        ({"end": 0.9}, "freeze=0.8: .*end=0.9"),
        ({**CONSTANT, "freeze": 0.2}, "freeze=0.2: .*schedule.start=0.3"),
    ],
)
def test_masks_that_would_stay_denser_than_the_schedule_are_refused(changed, message, make):
    pruning = {"method": "pathways", "schedule": {**SCHEDULE, **changed}}
    with pytest.raises(UserError, match=message):
        make("exp", weight_pruning=pruning)
    # where they stay as they begin, they begin at the final sparsity
    trainer = make("fixed", weight_pruning={**pruning, "pathways": {"adapt": False}})
    trainer.begin()
    trainer.data.start_epoch(1)
    for batch in trainer.batches():
        trainer.step([batch], Meter(ALONE), False)
        for name in trainer.masking.bank.names:
            assert trainer.masking.bank.density(name) == pytest.approx(0.3, abs=0.02)


def brute_force_sparsity(progress, schedule):
    """At a time of the schedule, which is cubic or constant."""
    if schedule.get("kind") == "constant":
        return 0.7 if progress >= schedule["start"] else 0.5
    left = (schedule["end"] - progress) / (schedule["end"] - 0.1)
    return 0.7 - 0.2 * min(max(left, 0), 1) ** 3


def test_masks_by_sensitivity(make):
    """By brute force: of a block, its mean square times the sum of its gradients' mean squares."""
    trainer = make("exp", {"renewal": "sensitivity"})
    trainer.begin()
    trainer.data.start_epoch(1)
    bank, sums, own = trainer.masking.bank, {}, dict.fromkeys(LANGUAGES, 0)
    square = lambda x: x.double().reshape(-1, 8, x.shape[1]).square().mean(1).flatten()  # noqa: E731
    masking, moved, old = trainer.masking, 0, {}
    gate = masking.gate

    def watched(step, batches):  # as the optimiser's step is about to be gated
        for name, parameter in bank.parameters().items():
            layer = parameter.grad.reshape(len(parameter), -1)
            sums[language, name] = sums.get((language, name), 0) + square(layer)
        return gate(step, batches)

    masking.gate = watched
    for step, batch in enumerate(trainer.batches()):
        language = trainer.data.language(1, step)
        weights = {
            name: square(p.detach().reshape(len(p), -1)) for name, p in bank.parameters().items()
        }
        trainer.step([batch], Meter(ALONE), False)
        if own[language] and own[language] % 4 == 0 and masking.mask_events:
            for name, kept in bank.blocks(language).items():
                scores = weights[name] * old[language, name]
                least = scores[kept].min()
                assert least >= scores[~kept].max() * (1 - 1e-5)
                largest = torch.zeros_like(kept)
                largest[weights[name].topk(int(kept.sum())).indices] = True
                moved += int((kept & ~largest).sum())
            for name in weights:
                sums[language, name] -= old[language, name]
        own[language] += 1
        old = {key: value.clone() for key, value in sums.items()}
    assert moved > 10 and max(own.values()) > 4


@pytest.mark.parametrize(
    "languages, expected",
    [
        ([["en"], ["en", "en"]], "en"),
        ([["en"], ["fr"]], None),
        ([["en", "fr"]], None),
        ([[""], [""]], None),
        ([[None]], None),
        ([["en"], [""]], None),
    ],
)
def test_a_set_is_of_one_language_if_all_of_its_cuts_are(languages, expected):
    cuts = [
        SimpleNamespace(supervisions=[SimpleNamespace(language=x) for x in c]) for c in languages
    ]
    assert TrainingData(None, None, 0.0, {"dev": cuts}).dev_languages == {"dev": expected}


def average(folder: Path) -> Path:
    assert cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
    return folder / "averaged.pt"


@pytest.fixture
def trained(make):
    """A model of pathways for en and fr and cy, whose file it returns."""
    trainer = make("trained")
    resume(trainer)
    assert trainer.run() == 0
    return average(trainer.folder)


def test_one_mask_for_all_is_where_pathways_begin(make):
    lap = make("lap", weight_pruning={"method": "gradual", "schedule": {**SCHEDULE, "final": 0.6}})
    resume(lap)
    assert lap.run() == 0
    path = average(lap.folder)
    trainer = make("exp", {"masks": str(path)}, training__init_from=str(path))
    resume(trainer)
    bank = trainer.masking.bank
    assert_same(bank.blocks("en"), lap.masking.bank.blocks(0.6))
    assert_same(bank.blocks("en"), bank.blocks("cy"))
    assert_same(dict(trainer.model.state_dict()), load_checkpoint(path)["model"])
    trainer.data.start_epoch(1)
    batches = list(trainer.batches())
    trainer.step(batches[:1], Meter(ALONE), False)  # the first interval is still to come
    assert_same(bank.blocks("en"), bank.blocks("cy"))
    assert not trainer.masking.mask_events
    fixed = make("fixed", {"masks": str(path), "adapt": False}, training__init_from=str(path))
    resume(fixed)
    assert fixed.run() == 0
    assert_same(fixed.masking.bank.blocks("en"), lap.masking.bank.blocks(0.6))


def test_each_language_begins_with_a_mask_of_its_own(make, trained, models, tmp_path):
    """Iterative pruning in each language by itself; then all of them together."""
    for number, language in enumerate(LANGUAGES):
        words = ["--model", str(trained), "--sparsity", "0.8"]
        path = tmp_path / f"{language}.pt"
        assert cli.main(["masks", *words, "--output", str(path)]) == 0
        one = make(
            f"imp {language}",
            {"masks": str(path), "adapt": False},
            data__languages=[language],
            data__dev=[f"dev-{language}"],
            training__init_from=str(path),
            seed=number,
        )
        resume(one)
        assert one.data.languages == [language]
        assert one.data.seconds == pytest.approx(one.data.sampler.index.duration.sum())
        assert len(one.data.sampler.index) == {"en": 18, "fr": 12, "cy": 6}[language]
        assert one.run() == 0
        words = ["--model", str(average(one.folder)), "--sparsity", "0.9"]
        assert cli.main(["masks", *words, "--output", str(path)]) == 0
    pattern = str(tmp_path / "{language}.pt")
    trainer = make("exp", {"masks": pattern, "adapt": False}, training__init_from=str(trained))
    resume(trainer)
    bank = trainer.masking.bank
    assert bank.names == trainer.data.languages
    before = load_checkpoint(trained)["masks"]["bank"]["named"]
    for language in LANGUAGES:
        named = load_checkpoint(tmp_path / f"{language}.pt")["masks"]["bank"]["named"][language]
        assert torch.equal(bank.state_dict()["named"][language], named)
        assert not (named & ~before[language]).any()  # bit by bit
        assert bank.density(language) == pytest.approx(0.1, abs=0.03)
    (tmp_path / "cy.pt").unlink()
    with pytest.raises(UserError, match="masks=.*cy.pt: there is no such file"):
        resume(make("missing", {"masks": pattern}))
    (tmp_path / "cy.pt").write_bytes((tmp_path / "en.pt").read_bytes())
    content = load_checkpoint(tmp_path / "cy.pt")
    del content["masks"]["bank"]["named"]["cy"]
    torch.save(content, tmp_path / "cy.pt")
    with pytest.raises(UserError, match="cy.pt: there is no pathway for language 'cy'"):
        resume(make("another", {"masks": pattern}))


def test_one_language_by_itself(make):
    """Its mask follows the weights that it trains, from what one mask for all was."""
    options = {"data__languages": ["en"], "data__dev": ["dev-en"], "training__epochs": 4}
    trainer = make("exp", **options)
    resume(trainer)
    assert trainer.run() == 0
    lines = (trainer.folder / "log" / "metrics.jsonl").read_text().splitlines()
    news = [line for line in map(json.loads, lines) if line["kind"] == "pathway-en"]
    assert len(news) > 3 and any(line["changed"] for line in news[1:])
    assert trainer.masking.bank.names == ["en"] and news[-1]["density"] == news[-1]["union"]
    assert news[-1]["density"] == pytest.approx(0.3, abs=0.02)
    checkpoints = numbered(trainer.folder, "checkpoint")
    path = checkpoints[len(checkpoints) // 3]  # amid the ramp
    again = make("again", **options)
    torch.save(load_checkpoint(path), again.folder / path.name)
    resume(again)
    assert again.run() == 0
    assert_same(trainer.state_dict(), again.state_dict())


@pytest.mark.parametrize("lazy", [False, True])
def test_cuts_of_some_languages(lazy, make):
    trainer = make("exp", data__languages=["cy", "en"], data__lazy=lazy)
    assert sorted(trainer.data.languages) == ["cy", "en"] and len(trainer.data.sampler.index) == 24
    with pytest.raises(UserError, match="data.languages: no training cut is of de"):
        make("a", data__languages=["en", "de"], data__lazy=lazy)
    with pytest.raises(UserError, match="data.languages=de: .* holds no cuts of them"):
        make("b", data__languages=["de"], data__lazy=lazy)


def test_frozen_layers_have_masks_and_stand_still(make, trained):
    frozen = {"training__freeze": ["encoder.layers.0.ffn1", "joiner"]}
    with pytest.raises(
        UserError, match=r"freeze: encoder.layers.0.ffn1\S+ would have no gradients"
    ):
        make("sensitive", {"renewal": "sensitivity"}, **frozen)
    trainer = make("exp", {}, **frozen)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    resume(trainer)
    assert trainer.run() == 0
    for name, value in trainer.model.named_parameters():
        still = name.startswith(("encoder.layers.0.ffn1.", "joiner."))
        assert torch.equal(value, before[name]) == still, name
    masks = trainer.masking.bank.blocks("en")
    assert all(0 < kept.float().mean() < 0.5 for name, kept in masks.items() if ".ffn1." in name)
    path = str(trained)
    options = {"training__init_from": path, "data__languages": ["en"], "data__dev": ["dev-en"]}
    both = make("both", {"masks": path, "protect": True}, **options, **frozen)
    for name, value in both.model.named_parameters():  # protection thaws nothing
        still = name.startswith(("encoder.layers.0.ffn1.", "joiner."))
        assert value.requires_grad == (not still), name


def rank_main(rank: int, corpus, root: Path, renewal: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    config = masked_config(
        corpus,
        masking(renewal=renewal, max_union_density=0.55),
        data__batches="monolingual",
        data__max_duration=3.0,
        data__dev=["dev-en"],
        training__grad_accumulation=2,
    )
    trainer = trainer_of(config, corpus, root / "exp", ranks)
    resume(trainer)
    assert trainer.run() == 0 and trainer.position.step >= 10
    torch.save(trainer.model.state_dict(), root / f"{rank}.pt")
    (root / f"{rank}.txt").write_text(f"{trainer.masking.bank.digest()} {trainer.masking.steps}")
    if ranks.first:
        (root / "again").mkdir()
        path = numbered(root / "exp", "checkpoint")[5]
        torch.save(load_checkpoint(path), root / "again" / path.name)
    ranks.barrier()
    again = trainer_of(config, corpus, root / "again", ranks)
    resume(again)
    assert again.run() == 0
    assert_same(again.model.state_dict(), trainer.model.state_dict())
    state = again.masking.state_dict()
    if rank:
        state["bank"]["named"]["fr"][-1] ^= 1
    again.masking.load_state_dict(state)
    with pytest.raises(UserError, match=r"the mask bank of rank 1 differs .* \(step 40\): the"):
        again.masking.start_step(40, 0.9, "en")
    ranks.leave()


@pytest.mark.parametrize("renewal", ["sensitivity", "regrow"])
def test_two_ranks_agree_on_language_and_masks(renewal, corpus, tmp_path):
    on_ranks(rank_main, (corpus, tmp_path, renewal), 2)
    assert_same(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)))
    one, other = ((tmp_path / f"{rank}.txt").read_text() for rank in (0, 1))
    assert one == other and "'cy'" in one


def test_what_does_not_fit_is_said(trained, corpus, make, tmp_path, models):
    with pytest.raises(UserError, match="trains one language a step: set data.batches=monoling"):
        make("a", data__batches="mixed")
    with pytest.raises(UserError, match="data.dev: the set dev-all is not of one language"):
        make("b", data__dev=["dev-all"]).run()
    with pytest.raises(
        UserError, match="data.dev: the set dev-de: .*no pathway for language 'de'.* en, fr, cy"
    ):
        make("c", data__dev=["dev-de"]).run()
    for name, (options, message) in {
        "missing": ({"masks": "nothing.pt"}, "masks=nothing.pt: there is no such file"),
        "none": ({"masks": str(models["none"])}, "the model was trained without masks"),
        "all": ({"masks": str(trained), "protect": True}, "are trained. So .*protects nothing"),
        "lap": ({"masks": str(models["gradual"]), "protect": True}, "it has one common mask. So"),
    }.items():
        more = {"training__init_from": options["masks"]} if "protect" in options else {}
        with pytest.raises(UserError, match=message):
            resume(make(name, options, **more))
    with pytest.raises(UserError, match="init_from= must be the model of .*masks=a.pt, whose"):
        make("options", {"protect": True, "masks": "a.pt"})
    for name, (path, message) in {
        "file": ("nothing.pt", "training.init_from=nothing.pt: there is no such file"),
        "shape": (models["none"], None),
    }.items():
        more = {} if message else {"model__joiner_dim": 24}
        with pytest.raises(UserError, match=message or "is of another shape: .* take the model"):
            resume(make(f"from {name}", training__init_from=str(path), **more))
    content = load_checkpoint(models["none"])
    symbols = content["symbols"][::-1]
    other = {**content, "tokenizer_digest": "other", "symbols": symbols}
    torch.save(other, tmp_path / "other.pt")
    options = {"protect": True, "masks": str(tmp_path / "other.pt")}
    with pytest.raises(UserError, match="protect=true: the tokenizer in --lang-dir does not begin"):
        resume(make("tokenizer", options, training__init_from=str(tmp_path / "other.pt")))
    for options, message in (
        ({"protect": True}, "protect=true: weight_pruning.pathways.masks must name what is"),
        ({"protect": True, "masks": "a.pt", "grad": "all"}, "grad=all moves what is protected"),
        ({"protect": True, "masks": "{language}.pt"}, "masks must name one file for all"),
        (
            {"adapt": False, "max_union_density": 0.5},
            "max_union_density=0.5: is for masks that adapt",
        ),
    ):
        with pytest.raises(UserError, match=message):
            make("options", options)
