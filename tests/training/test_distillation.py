"""Dense -> sparse distillation: the divergence, whose gradients it gives, and what it costs."""

import math

import pytest
import torch
from torch import nn

from asrprune.data_pruning.scores import UNIT
from asrprune.training.distillation import divergence
from asrprune.training.metrics import Meter
from asrprune.training.schedule import loss_weights
from asrprune.training.step import backward
from tests.training.command import shake
from tests.training.masked_cases import ALONE, masked_config, trainer_of

NAMES = ("features", "feature_lens", "tokens", "token_lens")
ENCODER = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "kernel_size": 7}


@pytest.fixture
def make_trainer(tiny_corpus, tmp_path):
    """``make_trainer(name, sampling, scale, **options)``: layers of sparsity 0.6 from the start."""

    def make(name, sampling, scale=0.7, from_sparsity=0.5, dropout=0.0, **options):
        distillation = {"scale": scale, "from_sparsity": from_sparsity}
        supernet = {"sampling": sampling, "dense": 0.4, "sparsest": 0.6, "random": 0}
        masking = {
            "method": "supernet",
            "schedule": {"kind": "constant", "final": 0.6},
            "supernet": {**supernet, "distillation": distillation},
        }
        settings = {
            "data__spec_augment": {"probability": 0.0},
            "data__noise": {"cuts": ""},
            "model__encoder_options": {**ENCODER, "dropout": dropout},
            "training__optimizer__clip_norm": 0,
            **options,
        }
        config = masked_config(tiny_corpus, masking, **settings)
        trainer = trainer_of(config, tiny_corpus, tmp_path / name)
        shake(trainer.model)
        trainer.masking.start_step(0, 0.5)
        trainer.data.start_epoch(1)
        return trainer

    return make


def gradients(trainer, batches, step=100) -> dict[str, torch.Tensor]:
    """Of one step's micro-batches, as the trainer adds them up."""
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.position.step = step
    tokens = sum(int((batch["token_lens"] + 1).sum()) for batch in batches)
    for number, batch in enumerate(batches):
        backward(trainer, batch, number, 0.5, tokens, Meter(ALONE))
    return {name: value.grad.clone() for name, value in trainer.model.named_parameters()}


def by_hand(trainer, batch, network, scale) -> torch.Tensor:
    """The loss of a sub-network with the dense network's scores as targets, without dropout."""
    model, tokens = trainer.model, int((batch["token_lens"] + 1).sum())
    with torch.no_grad():
        wanted = model.simple_am(model.encode(*(batch[name] for name in NAMES[:2]))[0]).softmax(-1)
    weight, bias = model.simple_am.weight.detach(), model.simple_am.bias.detach()
    with trainer.masking.applied(network):
        simple, pruned = model(*(batch[name] for name in NAMES))
        h, lengths = model.encode(*(batch[name] for name in NAMES[:2]))
        found = (h @ weight.T + bias).log_softmax(-1)
        apart = (wanted * (wanted.log() - found)).sum(-1)
        apart = sum(apart[row, :length].sum() for row, length in enumerate(lengths.tolist()))
        simple_weight, pruned_weight = loss_weights(0.5, trainer.config.loss)
        loss = simple_weight * simple.sum() + pruned_weight * (pruned.sum() + scale * apart)
        (loss / tokens).backward()
    return loss


def test_divergence_is_that_of_the_frames_that_count():
    generator = torch.Generator().manual_seed(0)
    h, teacher = torch.randn(2, 3, 5, 4, generator=generator)
    head, lengths = nn.Linear(4, 6), torch.tensor([5, 2, 0])
    expected = []
    for row, length in enumerate(lengths.tolist()):
        total = 0.0
        for frame in range(length):
            p = head(teacher[row, frame]).softmax(0).tolist()
            q = head(h[row, frame]).softmax(0).tolist()
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected.append(total)
    found = divergence(h, teacher, lengths, head)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert (found[:2] > 0).all()
    h[1, 2:] = 1e4  # junk past the end
    torch.testing.assert_close(divergence(h, teacher, lengths, head), found)
    assert divergence(h, h, lengths, head).tolist() == [0, 0, 0]


def test_only_the_sub_network_learns():
    h, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    head = nn.Linear(4, 5)
    divergence(h, teacher, torch.tensor([3, 2]), head).sum().backward()
    assert h.grad[:, :2].all() and not h.grad[1, 2].any()
    assert teacher.grad is None and head.weight.grad is None and head.bias.grad is None


@pytest.mark.parametrize("sampling", ["single", "sandwich"])
def test_gradients_by_hand(sampling, make_trainer):
    """Without dropout the dense network says the same in its own pass and as a teacher alone."""
    trainer = make_trainer("exp", sampling)
    batch = next(trainer.batches())
    step = next(n for n in range(100, 200) if any(trainer.masking.networks(n, 0)[0].values()))
    networks = trainer.masking.networks(step, 0)
    found = gradients(trainer, [batch], step)
    trainer.optimizer.zero_grad(set_to_none=True)
    for network in networks:
        by_hand(trainer, batch, network, 0.7 if any(network.values()) else 0.0)
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(
            found[name], value.grad / len(networks), rtol=1e-3, atol=1e-5, msg=name
        )
    assert len(networks) == (2 if sampling == "sandwich" else 1)


@pytest.mark.parametrize("sampling", ["single", "sandwich"])
def test_too_dense_to_learn_is_as_without(sampling, make_trainer):
    dropout = 0.1 if sampling == "single" else 0.0  # the order of a sandwich changes its draws
    plain = make_trainer("plain", sampling, scale=0.0, dropout=dropout)
    dense = make_trainer("dense", sampling, from_sparsity=0.7, dropout=dropout)
    learning = make_trainer("learning", sampling, dropout=dropout)
    batches = [batch for batch, _ in zip(plain.batches(), range(4), strict=False)]
    found = []
    for trainer in (plain, dense, learning):
        torch.manual_seed(1)
        found.append(gradients(trainer, batches))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])
    key = next(iter(plain.masking.bank.parameters()))
    assert not torch.allclose(found[0][key], found[2][key])
    # the teacher draws nothing: what does not learn from it has the same dropout
    torch.testing.assert_close(
        found[0]["joiner.output.weight"], found[2]["joiner.output.weight"], rtol=1e-4, atol=1e-6
    )


def test_bfloat16_learns_too(make_trainer):
    """Autocast's copies of a pass without gradients must not serve the one with them."""
    exact = make_trainer("exact", "single")
    half = make_trainer("half", "single", training__precision="bfloat16")
    [batch, *_] = exact.batches()
    step = next(n for n in range(100, 200) if any(exact.masking.networks(n, 0)[0].values()))
    wanted, found = (gradients(trainer, [batch], step) for trainer in (exact, half))
    for name, value in wanted.items():
        assert found[name].any() == value.any(), name
        similar = torch.cosine_similarity(value.flatten(), found[name].flatten(), 0)
        assert similar > 0.9 or not value.any(), name


def test_passes_are_counted(make_trainer, caplog):
    for sampling, each in (("single", 1), ("sandwich", 2)):
        trainer = make_trainer(sampling, sampling, training__grad_accumulation=2)
        assert trainer.run() == 0
        steps, batches = trainer.position.step, trainer.seen.passes // each
        assert 2 * steps - 2 <= batches <= 2 * steps  # an epoch's last step may have one alone
        if sampling == "sandwich":
            assert trainer.seen.teacher_passes == 0
        else:
            assert 0 < trainer.seen.teacher_passes < batches
    plain = make_trainer("plain", "single", scale=0.0)
    assert plain.run() == 0
    assert (plain.seen.passes, plain.seen.teacher_passes) == (plain.position.step, 0)


def test_the_divergence_is_told(make_trainer):
    trainer = make_trainer("exp", "sandwich")
    [batch, *_] = trainer.batches()
    meter = Meter(ALONE)
    trainer.step([batch], meter, False)
    assert meter.read()["divergence"] > 0
    plain = make_trainer("plain", "sandwich", scale=0.0)
    plain.step([batch], meter, False)
    assert "divergence" not in meter.read()


def test_data_pruning_is_told_of_the_dense_network(make_trainer):
    """As without distillation, where the dense network comes last and not first."""
    pruning = {"policy": "el2n", "keep": 0.6, "score": "el2n"}
    scores = []
    for name, scale in (("plain", 0.0), ("distilled", 0.7)):
        trainer = make_trainer(name, "sandwich", scale=scale, data_pruning=pruning)
        [batch, *_] = trainer.batches()
        trainer.step([batch], Meter(ALONE), False)
        scores.append(trainer.data.sampler.scores.pending()["sum"].double() * UNIT)
    assert scores[0].any()
    torch.testing.assert_close(*scores)
