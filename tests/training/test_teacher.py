"""A fixed teacher: a training learns from its scores, and it stays as it is."""

import shutil

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.config import override
from asrprune.training import step as one_step
from asrprune.training.checkpoint import load_checkpoint, numbered, save_checkpoint
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from asrprune.training.schedule import loss_weights
from tests.training.command import assert_same, shake
from tests.training.masked_cases import ALONE, METHODS, masked_config, trainer_of

NAMES = ("features", "feature_lens", "tokens", "token_lens")
ENCODER = {"dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "kernel_size": 7}
PLAIN = {
    "data__spec_augment": {"probability": 0.0},
    "data__noise": {"cuts": ""},
    "training__optimizer__clip_norm": 0,
    "model__encoder_options": {**ENCODER, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def teacher(tiny_corpus, tmp_path_factory):
    """A model of other sizes, whose scores are far from even."""
    folder = tmp_path_factory.mktemp("teacher")
    config = masked_config(tiny_corpus, {}, **{**PLAIN, "model__encoder_options": {
        **ENCODER, "dim": 24, "num_layers": 2, "dropout": 0.5,
    }})  # fmt: skip
    trainer = trainer_of(config, tiny_corpus, folder)
    assert trainer.run() == 0
    assert cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
    content = load_checkpoint(folder / "averaged.pt")
    generator = torch.Generator().manual_seed(1)
    for name in ("simple_am.weight", "simple_am.bias"):
        value = content["model"][name]
        value += torch.randn(value.shape, generator=generator)
    save_checkpoint(content, folder / "averaged.pt")
    return folder / "averaged.pt"


@pytest.fixture
def make(tiny_corpus, tmp_path):
    """``make(name, teacher or None, masking, **options)``: a trainer at its start."""

    def make(name, teacher, masking=None, **options):
        more = {**PLAIN, **options}
        if teacher:
            more = {"training__teacher": str(teacher), "training__teacher_scale": 0.7, **more}
        trainer = trainer_of(
            masked_config(tiny_corpus, masking or {}, **more), tiny_corpus, tmp_path / name
        )
        shake(trainer.model)
        trainer.data.start_epoch(1)
        return trainer

    return make


def gradients(trainer, batch):
    trainer.optimizer.zero_grad(set_to_none=True)
    tokens = int((batch["token_lens"] + 1).sum())
    trainer.position.step = 100
    one_step.backward(trainer, batch, 0, 0.5, tokens, Meter(ALONE))
    return {name: value.grad.clone() for name, value in trainer.model.named_parameters()}


def test_gradients_by_hand(make, teacher):
    trainer = make("exp", teacher)
    [batch, *_] = trainer.batches()
    found = gradients(trainer, batch)
    model, other = trainer.model, trainer.teacher
    assert other.encoder.output_dim == 24 and not other.training
    with torch.no_grad():
        wanted = other.simple_am(other.encode(*(batch[name] for name in NAMES[:2]))[0]).softmax(-1)
    trainer.optimizer.zero_grad(set_to_none=True)
    simple, pruned = model(*(batch[name] for name in NAMES))
    h, lengths = model.encode(*(batch[name] for name in NAMES[:2]))
    head = model.simple_am
    own = (h @ head.weight.detach().T + head.bias.detach()).log_softmax(-1)
    apart = (wanted * (wanted.log() - own)).sum(-1)
    apart = sum(apart[row, :length].sum() for row, length in enumerate(lengths.tolist()))
    weights = loss_weights(0.5, trainer.config.loss)
    loss = weights[0] * simple.sum() + weights[1] * (pruned.sum() + 0.7 * apart)
    (loss / int((batch["token_lens"] + 1).sum())).backward()
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-5, msg=name)
    plain = gradients(make("plain", None), batch)
    assert not torch.allclose(plain["encoder.norm.weight"], found["encoder.norm.weight"])


def test_the_teacher_draws_nothing(make, teacher):
    """The joiner does not learn from it. So its gradients tell whether dropout is the same."""
    found = []
    for name, path in (("plain", None), ("taught", teacher)):
        trainer = make(name, path, model__encoder_options={**ENCODER, "dropout": 0.3})
        [batch, *_] = trainer.batches()
        torch.manual_seed(5)
        found.append(gradients(trainer, batch))
    plain, taught = found
    torch.testing.assert_close(plain["joiner.output.weight"], taught["joiner.output.weight"])
    assert not torch.allclose(plain["encoder.norm.weight"], taught["encoder.norm.weight"])


@pytest.mark.parametrize("method", ["none", "channels, gradual", "channels, sandwich"])
def test_exact_resume_and_a_teacher_that_stays_as_it_is(method, make, teacher):
    before = load_checkpoint(teacher)["model"]
    masking = METHODS.get(method)
    whole = make("whole", teacher, masking)
    resume(whole)
    assert whole.run() == 0
    for name, value in whole.teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert whole.seen.teacher_passes == whole.position.step  # one batch a step
    last, *earlier = reversed(numbered(whole.folder, "checkpoint"))
    for path in earlier[::7]:
        part = make(path.stem, teacher, masking)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), load_checkpoint(last))


def test_a_teacher_may_move_but_not_change(make, teacher, tmp_path):
    path = shutil.copy(teacher, tmp_path / "teacher.pt")
    trainer = make("exp", path)
    resume(trainer)
    assert trainer.run() == 0
    moved = shutil.move(path, tmp_path / "moved.pt")
    resume(make("exp", moved, training__epochs=3))
    with pytest.raises(UserError, match="training.teacher"):
        resume(make("exp", None, training__epochs=3))
    with pytest.raises(UserError, match="teacher_scale"):
        resume(make("exp", moved, training__epochs=3, training__teacher_scale=0.5))
    content = load_checkpoint(moved)
    content["model"]["simple_am.bias"] += 1
    save_checkpoint(content, moved)
    with pytest.raises(UserError, match="training.teacher"):
        resume(make("exp", moved, training__epochs=3))


def test_an_extracted_pathway_may_teach(make, teacher, tmp_path):
    """Its file names the method of its training, but holds one network."""
    content = load_checkpoint(teacher)
    options = {**content["config"]["weight_pruning"], "method": "pathways"}
    content["config"] = {**content["config"], "weight_pruning": options}
    save_checkpoint(content, tmp_path / "language.pt")
    assert make("exp", tmp_path / "language.pt").teacher is not None
    save_checkpoint({**content, "masks": {"bank": {}}}, tmp_path / "all.pt")
    with pytest.raises(UserError, match="has a network for each language"):
        make("exp", tmp_path / "all.pt")


def test_what_cannot_teach_is_refused(make, teacher, tmp_path):
    with pytest.raises(UserError, match=r"training\.teacher=.*none\.pt: there is no such file"):
        make("exp", tmp_path / "none.pt")
    content = load_checkpoint(teacher)
    for change, message in (
        ({"tokenizer_digest": "other"}, "was trained with another tokenizer"),
        ({"model": {}}, "its weights do not fit its config"),
    ):
        save_checkpoint({**content, **change}, tmp_path / "bad.pt")
        with pytest.raises(UserError, match=message):
            make("exp", tmp_path / "bad.pt")
    del content["model"]
    save_checkpoint(content, tmp_path / "bad.pt")
    with pytest.raises(UserError, match="is no model: no 'model' in it"):
        make("exp", tmp_path / "bad.pt")
    (tmp_path / "bad.pt").write_bytes(b"no model")
    with pytest.raises(UserError, match="is damaged, or no model"):
        make("exp", tmp_path / "bad.pt")


def test_frames_that_cannot_be_compared_are_refused(make, teacher):
    other = {"stacked_frames": 3, "dim": 16, "num_layers": 1, "num_heads": 2, "ffn_dim": 16}
    with pytest.raises(UserError, match="other numbers of frames than this model's"):
        make(
            "exp", teacher, model__encoder="asrprune.transducer.emformer:emformer",
            model__encoder_options=other,
        )  # fmt: skip


def test_options_that_do_not_go_together(make, teacher):
    config = make("exp", teacher).config
    with pytest.raises(UserError, match="teacher_scale=0.5: is for training.teacher"):
        override(config, ["training.teacher=''", "training.teacher_scale=0.5"])
    with pytest.raises(UserError, match="teacher_scale=0: nothing would be learnt"):
        override(config, ["training.teacher_scale=0"])
    with pytest.raises(UserError, match="a network learns from one teacher"):
        make("both", teacher, METHODS["distilled"])


def test_memory_is_scanned_with_the_teacher(make, teacher):
    trainer = make("exp", teacher)
    meter = Meter(ALONE)
    [batch, *_] = trainer.batches()
    one_step.scan(trainer, batch, meter)
    assert meter.read()["divergence"] > 0
