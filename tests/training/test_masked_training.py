"""Training with masks: exact resume, equal bits on all ranks, and weights that do not move."""

import logging
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import start_ranks
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from asrprune.training.step import backward, weighted_loss
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.masked_weights import masked_state
from tests.training.command import assert_same, on_ranks, train_to_next
from tests.training.masked_cases import (
    ALONE,
    METHODS,
    SUPERNET,
    UNITS,
    masked_config,
    trainer_of,
)

EVERY = METHODS | UNITS


@pytest.mark.parametrize("method", EVERY)
def test_resume_after_every_step(method, make_masked_trainer):
    """To the next one, and from one to the end. With data pruning on: both hearts in one run."""
    pruning = {"data_pruning": {"policy": "easy2hard", "keep": 0.6, "anneal": 0.34}}
    options = {"training__epochs": 3, **pruning}
    trainer = make_masked_trainer("whole", EVERY[method], **options)
    assert trainer.run() == 0
    paths = numbered(trainer.folder, "checkpoint")
    assert len(paths) >= 9
    last = load_checkpoint(paths[-1])
    assert last["masking"]["sparsity"] == 0.8
    for path, following in pairwise(paths):
        part = make_masked_trainer(path.stem, EVERY[method], **options)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        expected = load_checkpoint(following)
        if path == paths[len(paths) // 3]:
            assert part.run() == 0
            expected = last
        else:
            train_to_next(part, expected)
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), expected)


@pytest.mark.parametrize(
    "method, sampling", [("gradual", "single"), ("supernet", "single"), ("supernet", "sandwich")]
)
@pytest.mark.parametrize("policy", ["full", "easy2hard"])
def test_nothing_pruned_is_no_masks(method, sampling, policy, make_masked_trainer):
    pruning = {"data_pruning": {"policy": policy, "keep": 0.6 if policy != "full" else 1.0}}
    options = {**pruning, "training__epochs": 2 if policy == "full" else 3}
    plain = make_masked_trainer("plain", {}, **options)
    plain.run()
    masking = {"method": method, "schedule": {"final": 0.0}, "supernet": {"sampling": sampling}}
    masked = make_masked_trainer("masked", masking, **options)
    masked.run()
    assert_same(masked.model.state_dict(), plain.model.state_dict())
    assert_same(masked.average.state_dict(), plain.average.state_dict())


def test_masked_weights_stand_still_and_others_move(make_masked_trainer):
    schedule = {"kind": "constant", "final": 0.7, "refresh_interval": 10**6}
    trainer = make_masked_trainer("exp", {"method": "gradual", "schedule": schedule})
    masks = trainer.masking.bank.masks(0.7)
    parameters = trainer.masking.bank.parameters()
    before = {name: weight.detach().clone() for name, weight in parameters.items()}
    names = list(trainer.model.state_dict())
    trainer.run()
    assert list(trainer.model.state_dict()) == names
    for name, weight in trainer.masking.bank.parameters().items():
        assert weight is parameters[name]
        same = weight == before[name]
        assert same[~masks[name]].all() and 0.2 < masks[name].float().mean() < 0.4
        assert (~same[masks[name]]).float().mean() > 0.9, name


def test_a_step_moves_the_union_of_what_it_trained(make_masked_trainer):
    """Micro-batches of other sub-networks: no weight moves that none of them held."""
    schedule = {"kind": "constant", "final": 0.9, "refresh_interval": 10**6}
    supernet = {"dense": 0.0, "sparsest": 0.3}
    trainer = make_masked_trainer(
        "exp", {"method": "supernet", "schedule": schedule, "supernet": supernet}
    )
    trainer.data.start_epoch(1)
    batches = list(trainer.batches())
    moved = 0
    for step in range(4):
        before = {n: p.detach().clone() for n, p in trainer.masking.bank.parameters().items()}
        trainer.step(batches[2 * step : 2 * step + 2], Meter(ALONE), False)
        networks = [trainer.masking.networks(step, number)[0] for number in range(2)]
        for name, weight in trainer.masking.bank.parameters().items():
            held = [trainer.masking.bank.masks(network)[name] for network in networks]
            changed = weight != before[name]
            assert not changed[~(held[0] | held[1])].any()
            moved += int(changed.sum())
    assert moved


@pytest.mark.parametrize("method", ["supernet", "sandwich"])
def test_a_sub_network_moves_nothing_that_it_masks(method, make_masked_trainer):
    """Also where a denser one of the same step moves it: gradients are sums of their own ones."""
    still = {f"model__encoder_options__{kind}": 0.0 for kind in ("dropout", "attention_dropout")}
    trainer = make_masked_trainer("exp", METHODS[method], training__grad_accumulation=2, **still)
    masking, model = trainer.masking, trainer.model
    trainer.data.start_epoch(1)
    batches = list(trainer.batches())[:2]
    mixed = 0
    for step in range(6):
        masking.start_step(step, 0.5)
        expected: dict[str, torch.Tensor] = {}
        sizes: set[float] = set()
        for number, batch in enumerate(batches):
            networks = masking.networks(step, number)
            sizes.update(sum(network.values()) for network in networks)
            for network in networks:
                model.zero_grad()
                with masking.bank.apply(network, all_gradients=True):
                    weighted_loss(trainer, batch, 0.3, Meter(ALONE))[0].backward()
                for name, kept in masking.bank.masks(network).items():
                    own = model.get_parameter(name).grad * kept / len(networks)
                    expected[name] = expected.get(name, 0) + own
        model.zero_grad()
        trainer.position.step = step
        for number, batch in enumerate(batches):
            backward(trainer, batch, number, 0.3, 1.0, Meter(ALONE))
        for name, gradient in expected.items():
            found = model.get_parameter(name).grad
            torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-4)
        mixed += len(sizes) > 1
    assert mixed


def test_a_loss_is_compared_with_those_of_like_sparsity(make_masked_trainer):
    """Data pruning's levels are of the sub-networks that the batches drew."""
    for method, kinds in (("supernet", range(1, 10)), ("sandwich", [0]), ("gradual", [0])):
        masking = {**METHODS[method], "schedule": {"kind": "constant", "final": 0.8}}
        trainer = make_masked_trainer(method, masking)
        trainer.data.start_epoch(1)
        drawn = set()
        for step, batch in enumerate(trainer.batches()):
            trainer.step([batch], Meter(ALONE), False)
            told = trainer.masking.networks(step, 0)[-1]
            drawn.add(trainer.masking.loss_class(told))
        levels = trainer.data.sampler.scores.pending()["trend"][:, 1]
        assert drawn | {0} == {0, *np.flatnonzero(levels)} and drawn <= set(kinds)
        assert len(drawn) > 2 or method != "supernet"
    masking = make_masked_trainer("supernet", SUPERNET).masking
    names = [layer.name for layer in masking.bank.layers]
    assert masking.loss_class(dict.fromkeys(names, 0.0)) == 0  # nothing is sparse yet
    masking.sparsity = 0.8
    found = [masking.loss_class(dict.fromkeys(names, s)) for s in (0.0, 0.04, 0.1, 0.66, 0.99)]
    assert found == [1, 1, 2, 8, 11]


def test_losses_of_unlike_networks_are_not_ranked_as_they_are(make_masked_trainer):
    raw = {"policy": "easy2hard", "keep": 0.6, "detrend": False}
    with pytest.raises(UserError, match="data_pruning.detrend=true, which divides .*=sandwich"):
        make_masked_trainer("refused", SUPERNET, data_pruning=raw)
    for method in ("sandwich", "gradual"):
        make_masked_trainer(method, METHODS[method], data_pruning=raw)
    make_masked_trainer("random", SUPERNET, data_pruning={**raw, "policy": "random"})


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_the_scan_of_memory_holds_masked_weights(scale, make_masked_trainer):
    masking = {**SUPERNET, "supernet": {"distillation": {"scale": scale}}}
    trainer = make_masked_trainer("exp", masking)
    trainer.data.start_epoch(1)
    sets = [next(iter(trainer.data.sampler))]
    zeros: list[float] = []
    weight = next(iter(trainer.masking.bank.parameters().values()))
    trainer.model.encoder.register_forward_pre_hook(
        lambda *_: zeros.append((weight == 0).float().mean().item())
    )
    before = weight.detach().clone()
    trainer.scan_memory(sets)
    assert zeros == pytest.approx([0.0, 0.8] if scale else [0.8], abs=0.05)
    assert torch.equal(weight, before) and weight.grad is None


def check_one_byte(ranks, trainer, state) -> None:
    """A rank of which one level is another says so before it trains, and so does every other."""
    refresh = MaskBank.refresh

    def corrupted(self, **given) -> None:
        refresh(self, **given)
        if ranks.rank:
            next(iter(self._levels.values()))[0] ^= 1

    batches = trainer.batches()
    MaskBank.refresh = corrupted
    trainer.position.step = 3  # when blocks are ranked
    with pytest.raises(UserError, match=r"the mask bank of rank 1 differs .* \(step 3\): the"):
        trainer.step([next(batches)], Meter(ranks), False)
    MaskBank.refresh = refresh
    if ranks.rank:
        state["bank"]["levels"][-1] ^= 1
    trainer.masking.load_state_dict(state)
    trainer.position.step = 4
    with pytest.raises(UserError, match=r"the mask bank of rank 1 differs .* \(step 4\): the"):
        trainer.step([next(batches)], Meter(ranks), False)
    if ranks.rank:
        state["bank"]["levels"][-1] ^= 1
    trainer.masking.load_state_dict(state)
    trainer.step([next(batches)], Meter(ranks), False)


ON_RANKS = (
    "distilled", "sandwich", "channels, supernet", "channels, sandwich", *UNITS,
)  # fmt: skip


def rank_main(rank: int, corpus, root: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    for method in ON_RANKS:
        config = masked_config(corpus, EVERY[method], data__max_duration=6.0, data__dev=[])
        folder = root / method
        folder.mkdir(exist_ok=True)
        trainer = trainer_of(config, corpus, folder, ranks)
        networks = [trainer.masking.networks(step, 0, one) for step in (5, 6) for one in (0, 1)]
        assert trainer.run() == 0 and trainer.position.step >= 10
        shares = 3 if "sandwich" in method else 1
        assert trainer.seen.passes == trainer.position.step * 2 * shares
        drawn = [[trainer.masking.networks(s, 0, one) for s in range(10)] for one in (0, 1)]
        assert drawn[0] != drawn[1]
        torch.save(trainer.model.state_dict(), root / f"{method}-{rank}.pt")
        told = f"{trainer.masking.bank.digest()} {networks} {trainer.seen}"
        (root / f"{method}-{rank}.txt").write_text(told)
        if ranks.first:  # and from the middle on
            part = root / f"{method}-again"
            part.mkdir()
            path = numbered(folder, "checkpoint")[5]
            torch.save(load_checkpoint(path), part / path.name)
        ranks.barrier()
        again = trainer_of(config, corpus, root / f"{method}-again", ranks)
        resume(again)
        assert again.run() == 0
        assert_same(again.model.state_dict(), trainer.model.state_dict())
        assert again.seen == trainer.seen
    fresh = trainer_of(config, corpus, root / "fresh", ranks)
    fresh.data.start_epoch(1)
    check_one_byte(ranks, fresh, fresh.masking.state_dict())
    ranks.leave()


def test_ranks_with_other_sub_networks_hold_equal_bits(tiny_corpus, tmp_path):
    on_ranks(rank_main, (tiny_corpus, tmp_path), 2)
    for method in ON_RANKS:
        states = [torch.load(tmp_path / f"{method}-{r}.pt", weights_only=True) for r in (0, 1)]
        assert_same(*states)
        one, other = ((tmp_path / f"{method}-{rank}.txt").read_text() for rank in (0, 1))
        assert one == other  # digests, what each thinks that the other one trains, passes


def test_the_sparsest_is_validated_as_well(make_masked_trainer):
    trainer = make_masked_trainer("exp", SUPERNET)
    trainer.run()
    losses = trainer.validate()
    assert list(losses) == ["dev", "dev@0.80"] and losses["dev"] != losses["dev@0.80"]
    state = trainer.model.state_dict()
    zeroed = masked_state(state, trainer.masking.bank, 0.8)
    trainer.model.load_state_dict(zeroed)
    masking, trainer.masking = trainer.masking, None
    assert trainer.validate()["dev"] == pytest.approx(losses["dev@0.80"], rel=1e-5)
    assert masking.bank.density(0.8) == pytest.approx(0.2, abs=0.02)


def test_what_is_pruned_is_told(make_masked_trainer, caplog):
    caplog.set_level(logging.INFO)
    make_masked_trainer("plain", {})
    assert "pruned as" not in caplog.text
    trainer = make_masked_trainer("exp", SUPERNET)
    assert f"pruned: {len(trainer.masking.bank.layers)} layers" in caplog.text


def test_what_does_not_fit_is_named(make_masked_trainer):
    with pytest.raises(UserError, match="15x1"):
        make_masked_trainer("exp", {"method": "gradual", "block": "15x1"})
    with pytest.raises(UserError, match="decoder"):
        make_masked_trainer("exp", {"method": "gradual", "include": ["decoder.*"]})
