"""Frozen parameters: not a bit of them moves, whatever else a training does."""

import os
from pathlib import Path

import pytest
import torch

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.distributed import start_ranks
from asrprune.training.freezing import freeze
from asrprune.training.metrics import Meter
from asrprune.training.resume import resume
from tests.training.command import assert_same, on_ranks
from tests.training.masked_cases import ALONE, METHODS, masked_config, trainer_of

FROZEN = ["encoder.layers.0.ffn1", "*.norm*", "predictor.embedding"]
OPTIONS = {"training__freeze": FROZEN, "training__optimizer__weight_decay": 0.5}
DECAY = {**OPTIONS, "training__optimizer__lr": 0.01}


def check_frozen(trainer, before) -> None:
    """Weights, moments and both averages of what FROZEN names, against the weights before."""
    parts = ("encoder.layers.0.ffn1.", "predictor.embedding.")
    frozen = {name for name in before if name.startswith(parts) or ".norm" in name}
    frozen = {name for name in frozen if name in trainer.average.mean}
    assert 5 < len(frozen) < len(before) / 2
    state = trainer.optimizer.state
    for name, value in trainer.model.named_parameters():
        same = torch.equal(value, before[name])
        mean = trainer.average.mean[name]
        assert same == (name in frozen) == torch.equal(mean, before[name].double()), name
        assert (value not in state) == (name in frozen), name  # no moments
        assert value.requires_grad != (name in frozen)


RANKED_BY_WEIGHTS = [name for name in METHODS if METHODS[name].get("criterion") != "first_order"]


@pytest.mark.parametrize("method", ["none", *RANKED_BY_WEIGHTS])
def test_frozen_bits_do_not_move(method, make_masked_trainer):
    """Of layers that are pruned too; with weight decay, and a rate at which all else moves."""
    options = {**DECAY, "training__grad_accumulation": 2 if method == "supernet" else 1}
    trainer = make_masked_trainer("exp", METHODS.get(method, {}), **options)
    with torch.no_grad():  # no branch is silent, so that all that may move does
        for value in trainer.model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    resume(trainer)
    assert trainer.run() == 0
    check_frozen(trainer, before)


@pytest.mark.parametrize("words", [(), ("--use-averaged-model", "false")])
def test_the_average_of_epochs_is_the_weight_itself(words, make_masked_trainer):
    trainer = make_masked_trainer("exp", {}, training__epochs=3, **DECAY)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.run() == 0
    assert cli.main(["average", "--exp-dir", str(trainer.folder), "--avg", "2", *words]) == 0
    after = load_checkpoint(trainer.folder / "averaged.pt")["model"]
    for name, value in trainer.model.named_parameters():
        assert torch.equal(after[name], before[name]) or value.requires_grad, name


def test_resume_is_exact(make_masked_trainer):
    """With masks and data pruning on; see test_initial.py for a training without."""
    options = {**OPTIONS, "data_pruning": {"policy": "easy2hard", "keep": 0.6, "score": "el2n"}}
    options["training__epochs"] = 3
    trainer = make_masked_trainer("whole", METHODS["gradual"], **options)
    assert trainer.run() == 0
    last, *earlier = reversed(numbered(trainer.folder, "checkpoint"))
    for path in earlier[::5]:
        part = make_masked_trainer(path.stem, METHODS["gradual"], **options)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), load_checkpoint(last))
    options["training__freeze"] = ["encoder"]
    other = make_masked_trainer(part.folder.name, METHODS["gradual"], **options)
    with pytest.raises(UserError, match=r"another training; changed: training.freeze \("):
        resume(other)


def rank_main(rank: int, corpus, root: Path, start: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK="0")
    torch.set_num_threads(1)
    ranks = start_ranks("cpu", f"file://{root}/rendezvous")
    options = {"data__max_duration": 6.0, "data__dev": [], "training__init_from": start, **DECAY}
    before = dict(load_checkpoint(Path(start))["model"])
    config = masked_config(corpus, METHODS["sandwich"], **options)
    trainer = trainer_of(config, corpus, root / "exp", ranks)
    resume(trainer)
    assert_same(dict(trainer.model.state_dict()), before)
    assert trainer.run() == 0 and trainer.position.step >= 6
    check_frozen(trainer, before)
    torch.save(trainer.model.state_dict(), root / f"{rank}.pt")
    if ranks.first:
        (root / "again").mkdir()
        path = numbered(trainer.folder, "checkpoint")[3]
        torch.save(load_checkpoint(path), root / "again" / path.name)
    ranks.barrier()
    again = trainer_of(config, corpus, root / "again", ranks)
    resume(again)
    assert again.run() == 0
    assert_same(again.state_dict(), trainer.state_dict())
    ranks.leave()


def test_two_ranks(tiny_corpus, tmp_path, make_masked_trainer):
    start = make_masked_trainer("start", {})
    with torch.no_grad():
        for value in start.model.parameters():
            value += 0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(7))
    path = start.save_checkpoint()
    on_ranks(rank_main, (tiny_corpus, tmp_path, str(path)), 2)
    assert_same(*(torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)))


def test_the_norm_that_is_clipped_is_of_what_trains(make_masked_trainer):
    """A frozen gradient is none: it is not reduced over ranks, and not part of the norm."""
    trainer = make_masked_trainer("exp", {}, training__freeze=["encoder"])
    trainer.data.start_epoch(1)
    meter = Meter(ALONE)
    trainer.step([next(iter(trainer.batches()))], meter, False)
    found = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert all(value.grad is None for value in trainer.model.encoder.parameters())
    total = torch.stack([gradient.norm() for gradient in found]).norm().item()
    limit = trainer.options.optimizer.clip_norm
    assert min(float(meter.sums["norm"]), limit) == pytest.approx(total, rel=1e-4)


def test_a_scan_of_memory_changes_nothing(make_masked_trainer):
    trainer = make_masked_trainer("exp", {}, training__freeze=["encoder"])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.data.start_epoch(1)
    trainer.scan_memory([next(iter(trainer.data.sampler))])
    assert_same(dict(trainer.model.state_dict()), before)


def test_patterns_are_modules_and_parameters(make_masked_trainer):
    def frozen(*patterns):
        model = make_masked_trainer("exp", {}).model
        count = freeze(model, patterns)
        names = {name for name, value in model.named_parameters() if not value.requires_grad}
        assert count == sum(model.get_parameter(name).numel() for name in names)
        return names

    names = {name for name, _ in make_masked_trainer("exp", {}).model.named_parameters()}
    assert frozen() == set()
    assert frozen("encoder") == {name for name in names if name.startswith("encoder.")}
    assert frozen("joiner.output.bias") == {"joiner.output.bias"}
    both = {name for name in names if name.endswith(".bias") or name.startswith("predictor.")}
    assert frozen("*.bias", "predictor") == both
    assert frozen("encoder.layers.0") == {n for n in names if n.startswith("encoder.layers.0.")}


def test_what_cannot_be_frozen_is_named(make_masked_trainer):
    def refused(*patterns, masking=None, **options):
        with pytest.raises(UserError) as error:
            make_masked_trainer("exp", masking or {}, training__freeze=[*patterns], **options)
        return str(error.value)

    told = refused("encoder", "encoder.layer.0")
    assert (
        "no parameter or module is named 'encoder.layer.0' (did you mean 'encoder.layers.0'?)"
        in (told)
    )
    assert "there are encoder, predictor, joiner, simple_am, simple_lm" in told
    assert "named 'encoder.layers'" not in told and "'layers.0'" in refused("layers.0")
    assert "training.freeze leaves nothing to train" in refused("*")
    assert "leaves only the heads of the simple loss" in refused("encoder", "predictor", "joiner")
    model = make_masked_trainer("exp", {}).model
    model.encoder.norm_of_mine = torch.nn.BatchNorm1d(4)
    with pytest.raises(
        UserError, match=r"encoder.norm_of_mine \(BatchNorm1d\) is frozen, and keeps"
    ):
        freeze(model, ["encoder"])
