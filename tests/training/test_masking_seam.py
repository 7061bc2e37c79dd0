"""What the trainer passes on to the parts: gates, draws, clipping, dropout, and every option."""

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.distributed import Ranks
from asrprune.training.methods import make_masking
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from tests.training.masked_cases import ALONE, SUPERNET

CONSTANT = {"kind": "constant", "final": 0.8, "refresh_interval": 10**6}


def test_a_step_moves_all_that_any_of_its_micro_batches_held(make_masked_trainer):
    """The gate is the union of their masks: no more, and no less."""
    supernet = {"dense": 0.0, "sparsest": 0.3}
    masking = {"method": "supernet", "schedule": CONSTANT, "supernet": supernet}
    trainer = make_masked_trainer("exp", masking)
    with torch.no_grad():  # no branch is silent, and decay alone moves what has no gradient
        for value in trainer.model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
    trainer.data.start_epoch(1)
    batches, only_second = list(trainer.batches()), 0
    bank = trainer.masking.bank
    for step in range(4):
        before = {n: p.detach().clone() for n, p in bank.parameters().items()}
        trainer.step(batches[2 * step : 2 * step + 2], Meter(ALONE), False)
        networks = [trainer.masking.networks(step, number)[0] for number in range(2)]
        for name, weight in bank.parameters().items():
            first, second = (bank.masks(network)[name] for network in networks)
            changed = weight != before[name]
            assert not changed[~(first | second)].any()
            if (first | second).any():
                assert changed[first | second].float().mean() > 0.99, name
            only_second += int((changed & second & ~first).sum())
    assert only_second


def test_each_rank_and_micro_batch_draws_its_own(make_masked_trainer):
    supernet = {"dense": 0.0, "sparsest": 0.0}
    masking = {"method": "supernet", "schedule": CONSTANT, "supernet": supernet}

    def drawn(name, rank=0, **options):
        two = Ranks(rank, 2, torch.device("cpu"))
        config_ranks = make_masked_trainer(name, masking, **options)
        config_ranks.masking._ranks = two
        config_ranks.masking.sparsity = 0.8
        return [config_ranks.masking.networks(step, 0) for step in range(12)], config_ranks.masking

    first, masking_of = drawn("first")
    second, _ = drawn("second", rank=1)
    other, _ = drawn("other", seed=7)
    assert first != second and first != other
    assert second == [masking_of.networks(step, 0, 1) for step in range(12)]
    assert first != [masking_of.networks(step, 1) for step in range(12)]
    assert len({str(one) for one in first}) > 8  # by step


@pytest.mark.parametrize("method", ["gradual", "supernet"])
def test_masks_that_never_follow_the_weights_are_those_of_the_start_model(
    method, make_masked_trainer, models
):
    """Magnitudes by brute force; those of random weights would keep others."""
    masking = {"method": method, "schedule": {**CONSTANT, "freeze": 0.0}}
    trainer = make_masked_trainer("exp", masking, training__init_from=str(models["none"]))
    resume(trainer)
    start = load_checkpoint(models["none"])["model"]
    assert trainer.run() == 0
    for name, kept in trainer.masking.bank.masks(0.8).items():
        weight = start[name].view(len(start[name]), -1)
        scores = weight.double().view(-1, 8, weight.shape[1]).square().mean(1)  # blocks of 8x1
        kept = kept.view(-1, 8, weight.shape[1])[:, 0]
        assert 0 < kept.sum() < kept.numel()
        assert scores[kept].min() >= scores[~kept].max()


def test_the_gradient_is_clipped_as_it_is_gated(make_masked_trainer):
    masking = {"method": "gradual", "schedule": CONSTANT}
    trainer = make_masked_trainer("exp", masking, training__optimizer__clip_norm=0)
    trainer.data.start_epoch(1)
    [batch, *_] = trainer.batches()
    masks, meter = trainer.masking.bank.masks(0.8), Meter(ALONE)
    trainer.step([batch], meter, False)
    for name, weight in trainer.masking.bank.parameters().items():
        assert not weight.grad[~masks[name]].any()
    total = sum(p.grad.square().sum() for p in trainer.model.parameters()).sqrt().item()
    assert float(meter.sums["norm"]) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("how", ["scaled", "constant", "gradual"])
def test_dropout_is_less_in_a_smaller_sub_network(how, make_masked_trainer):
    method = "gradual" if how == "gradual" else "supernet"
    supernet = {"dropout": "constant" if how == "constant" else "scaled"}
    trainer = make_masked_trainer("exp", {"method": method, "supernet": supernet})
    layers = [part for part in trainer.model.encoder.modules() if type(part) is torch.nn.Dropout]
    names = list(trainer.masking.bank.parameters())
    network = dict(zip(names, [0.2, 0.6] * len(names), strict=False))
    sizes = {n: p.numel() for n, p in trainer.masking.bank.parameters().items()}
    mean = sum(network[n] * sizes[n] for n in names) / sum(sizes.values())
    expected = 0.1 * (1 - mean) if how == "scaled" else 0.1
    with trainer.masking.applied(network):
        assert [part.p for part in layers] == pytest.approx([expected] * len(layers))
    assert layers and {part.p for part in layers} == {0.1}


def test_every_option_of_what_is_pruned_reaches_the_masks(make_masked_trainer):
    plain = make_masked_trainer("plain", SUPERNET).masking.bank
    for name, options in {
        "l1": {"criterion": "l1"},
        "global": {"scope": "global"},
        "exclude": {"exclude": ["*.ffn1.*"]},
        "pad": {"block": "15x1", "ragged": "pad"},
        "channel": {"unit": "channel", "multiple": 4},
        "layer": {"unit": "layer"},
        "head": {"unit": "head"},
        "recurrent": {"include": ["predictor.*"], "recurrent": True},
    }.items():
        more = (
            {"model__predictor": "asrprune.transducer.predictor:lstm"}
            if name == "recurrent"
            else {}
        )
        method = "gradual" if name == "global" else "supernet"
        masking = {**SUPERNET, "method": method, **options}
        bank = make_masked_trainer(name, masking, **more).masking.bank
        assert bank.digest() != plain.digest()
        assert bank.criterion == options.get("criterion", "mean_square")
        assert bank.scope == options.get("scope", "layer")
        names = [layer.name for layer in bank.layers]
        assert any("ffn1" in one for one in names) == (name not in ("exclude", "recurrent", "head"))


@pytest.mark.parametrize("unit", ["layer", "head"])
def test_the_only_unit_cannot_be_dropped(unit, make_masked_trainer):
    sizes = {f"model__encoder_options__num_{one}s": 1 for one in ("layer", "head")}
    masking = {"method": "gradual", "unit": unit}
    with pytest.raises(UserError, match=f"unit={unit}: of encoder.* one {unit} may be dropped"):
        make_masked_trainer("exp", masking, **sizes)


def test_a_multiple_must_leave_something_to_drop(make_masked_trainer):
    masking = {"method": "gradual", "unit": "channel", "multiple": 32}
    message = "multiple=32: encoder.layers.0.ffn1 has 32 channels, of which none could be dropped"
    with pytest.raises(UserError, match=message):
        make_masked_trainer("exp", masking)


def test_running_statistics_are_of_one_network_only(make_masked_trainer):
    trainer = make_masked_trainer("exp", {})
    trainer.model.encoder.norm_of_mine = torch.nn.BatchNorm1d(4)
    config = trainer.config
    config.weight_pruning.method = "gradual"
    assert make_masking(trainer.model, trainer.optimizer, config, ALONE)
    config.weight_pruning.method = "supernet"
    with pytest.raises(UserError, match=r"encoder.norm_of_mine \(BatchNorm1d\) keeps running"):
        make_masking(trainer.model, trainer.optimizer, config, ALONE)


def test_frozen_channels_have_no_first_order_score(make_masked_trainer):
    options = {"method": "gradual", "unit": "channel", "multiple": 2, "criterion": "first_order"}
    with pytest.raises(UserError, match="training.freeze: encoder.layers.0.* would have no grad"):
        make_masked_trainer("exp", options, training__freeze=["encoder.layers.0"])
