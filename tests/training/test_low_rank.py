"""A change of low rank for each matrix (LoRA): what it computes, what it moves, and its files."""

from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from asrprune import cli
from asrprune.base.errors import UserError
from asrprune.decoding.load import load_model
from asrprune.export.source import open_source
from asrprune.training.checkpoint import load_checkpoint, numbered
from asrprune.training.low_rank import merged_state, without_low_rank
from asrprune.training.resume import resume
from tests.training.command import assert_same
from tests.training.masked_cases import masked_config, trainer_of

RANK = 3


@pytest.fixture
def make(tiny_corpus, models, tmp_path):
    """``make(folder, **options)``: a trainer at its start, from a model without masks."""

    def make(folder, **options):
        more = {"training__init_from": str(models["none"]), "training__lora_rank": RANK, **options}
        config = masked_config(tiny_corpus, more.pop("weight_pruning", {}), data__dev=[], **more)
        return trainer_of(config, tiny_corpus, tmp_path / folder)

    return make


def matrices(model):
    return model.low_rank.names


def inputs():
    x = torch.randn(2, 80, 80, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([80, 60]), torch.tensor([[3, 4], [5, 6]]), torch.tensor([2, 2])


def test_computes_with_the_sum(make, models):
    trainer = make("exp", model__encoder_options__dropout=0.0)
    resume(trainer)
    model = trainer.model.eval()
    base, _ = load_model(models["none"], "cpu")
    for one, other in zip(model(*inputs()), base(*inputs()), strict=True):
        assert torch.equal(one, other)  # changes begin at zero
    for parameter in model.low_rank.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    names = matrices(model)
    assert any("in_proj" in name for name in names) and len(names) > 6
    leaves = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    key = {name: name.replace(".", "/") for name in names}
    sums = {
        name: leaves[name]
        + (leaves[f"low_rank.b.{key[name]}"] @ leaves[f"low_rank.a.{key[name]}"]).view_as(
            leaves[name]
        )
        for name in names
    }
    values = {**{name: one for name, one in leaves.items() if name not in sums}, **sums}
    values = without_low_rank(values)
    expected = functional_call(base, values, inputs())
    found = model(*inputs())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    sum(found).sum().backward()
    sum(expected).sum().backward()
    for name, parameter in model.named_parameters():
        if name in names:
            assert parameter.grad is None and isinstance(parameter, torch.nn.Parameter)
        else:
            torch.testing.assert_close(parameter.grad, leaves[name].grad, msg=name)
    with pytest.raises(RuntimeError):  # the parameters are back after an error too
        model(torch.zeros(2, 80, 3), *inputs()[1:])
    assert all(isinstance(model.get_parameter(name), torch.nn.Parameter) for name in names)


def test_moves_no_matrix_and_files_hold_the_sums(make, models):
    trainer = make("exp")
    resume(trainer)
    before = load_checkpoint(models["none"])["model"]
    assert trainer.run() == 0
    after, names = trainer.model.state_dict(), matrices(trainer.model)
    for name, value in before.items():
        same = name in names or name.startswith("feature_")
        assert torch.equal(after[name], value) == same, name
    path = average(trainer.folder)
    averaged = load_checkpoint(path)["model"]
    assert set(averaged) == set(before)
    assert all((averaged[name] != before[name]).any() for name in names)
    load_model(path, "cpu")
    last = numbered(trainer.folder, "epoch")[-1]
    model, _ = load_model(last, "cpu")
    assert_same(dict(model.state_dict()), merged_state(after))
    assert_same(open_source(last, []).content["model"], merged_state(after))
    trainer.model.eval()
    for one, other in zip(trainer.model(*inputs()), model(*inputs()), strict=True):
        torch.testing.assert_close(one, other)
    # a training may begin with the sums
    more = make("more", training__init_from=str(last), training__lora_rank=0)
    resume(more)
    assert_same(dict(more.model.state_dict()), merged_state(after))


def average(folder: Path) -> Path:
    assert cli.main(["average", "--exp-dir", str(folder), "--avg", "1"]) == 0
    return folder / "averaged.pt"


def test_exact_resume(make):
    trainer = make("whole")
    resume(trainer)
    assert trainer.run() == 0
    last, *earlier = reversed(numbered(trainer.folder, "checkpoint"))
    expected = load_checkpoint(last)
    for path in earlier[1::6]:
        part = make(path.stem)
        torch.save(load_checkpoint(path), part.folder / path.name)
        resume(part)
        assert part.run() == 0
        assert_same(load_checkpoint(numbered(part.folder, "checkpoint")[-1]), expected)


def test_what_is_frozen_has_no_change(make):
    trainer = make("exp", training__freeze=["encoder.layers.0.ffn1", "predictor"])
    resume(trainer)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.run() == 0
    names = matrices(trainer.model)
    assert names and not any(".ffn1." in name for name in names)
    after = merged_state(trainer.model.state_dict())
    for name, value in merged_state(before).items():
        still = name.startswith(("encoder.layers.0.ffn1.", "predictor.", "feature_"))
        assert torch.equal(after[name], value) == still, name


@pytest.mark.parametrize(
    "options, message",
    [
        ({"training__init_from": ""}, "lora_rank=3: .* training.init_from must name a trained"),
        ({"weight_pruning": {"method": "gradual"}}, "lora_rank=3: .*weight_pruning.method=gradual"),
        ({"training__lora_rank": 16}, r"lora_rank=16: encoder.* is 32 x 16. Set a lower rank"),
        ({"weight_pruning": {"include": ["nothing.*"]}}, "nothing"),
        (
            {"weight_pruning": {"include": ["simple_am.*"]}},
            "is for matrices of the encoder. Leave simple_am.weight out of",
        ),
    ],
)
def test_what_does_not_fit_is_said(options, message, make):
    with pytest.raises(UserError, match=message):
        make("exp", **options)
