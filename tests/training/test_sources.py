"""What a training began with is known again, by its content."""

import logging

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.resume import resume
from asrprune.training.sources import digest
from tests.languages import LANGUAGES, in_languages
from tests.training.masked_cases import SCHEDULE, masked_config, trainer_of


@pytest.fixture
def start(models, tmp_path):
    """A model file of the test's own."""
    path = tmp_path / "start.pt"
    path.write_bytes(models["gradual"].read_bytes())
    return path


def change(path, **parts):
    """Write a model file again, with some parts changed."""
    content = load_checkpoint(path)
    for name, function in parts.items():
        content[name] = function(content[name])
    torch.save(content, path)


def move_one_weight(model):
    name = next(name for name in model if "weight" in name)
    model[name].view(-1)[0] += 1
    return model


def other_masks(masks):
    masks["bank"]["levels"][0] ^= 1
    return masks


def test_another_start_model_of_the_same_name_is_refused(make_masked_trainer, start, caplog):
    """Whether the training goes on or is finished already."""
    caplog.set_level(logging.INFO)
    options = {"training__init_from": str(start)}
    trainer = make_masked_trainer("exp", {}, **options)
    resume(trainer)
    assert trainer.run() == 0
    before = start.read_bytes()
    resume(make_masked_trainer("exp", {}, **options))
    # what else the file says does not matter: a training starts with its weights and their mask
    change(start, config=lambda config: {**config, "seed": 7})
    resume(make_masked_trainer("exp", {}, **options))
    change(start, model=move_one_weight)
    message = (
        "checkpoint-.*changed: training.init_from=.*start.pt .it holds another one than this "
        "training began with.*--tag .of a second training: --pathways-tag.*or delete .*exp to"
    )
    with pytest.raises(UserError, match=message):
        resume(make_masked_trainer("exp", {}, **options))
    start.unlink()
    caplog.clear()
    resume(make_masked_trainer("exp", {}, **options))
    assert f"training.init_from={start} is gone since the training began with it" in caplog.text
    start.write_bytes(before)
    resume(make_masked_trainer("exp", {}, **options))
    # started again, it begins with what is there
    change(start, model=move_one_weight)
    again = make_masked_trainer("exp", {}, **options)
    resume(again, start_epoch=1)
    assert again.position.step == 0
    assert again.sources != trainer.sources


@pytest.mark.parametrize("each", [False, True])
def test_other_masks_of_the_same_name_are_refused(each, tiny_corpus, start, tmp_path):
    folder = tmp_path / "languages"
    folder.mkdir()
    corpus = in_languages(tiny_corpus, folder)
    names = [start.with_name(f"{language}.pt") for language in LANGUAGES] if each else [start]
    for path in names:
        path.write_bytes(start.read_bytes())
    pathways = {"masks": str(start.with_name("{language}.pt") if each else start)}
    masking = {"method": "pathways", "schedule": SCHEDULE, "pathways": pathways}
    options = {"data__batches": "monolingual", "data__dev": ["dev-en"], "training__epochs": 1}

    def make():
        return trainer_of(masked_config(corpus, masking, **options), corpus, tmp_path / "exp")

    trainer = make()
    resume(trainer)
    assert trainer.run() == 0 and len(trainer.sources) == len(names)
    change(names[-1], model=move_one_weight)  # of these masks alone are taken
    resume(make())
    change(names[-1], masks=other_masks)
    with pytest.raises(UserError, match=f"changed: weight_pruning.pathways.masks={names[-1]} .it"):
        resume(make())


def test_a_digest_is_of_all_there_is():
    """Names, kinds, shapes, values and their places."""
    values = [
        {"a": torch.arange(4.0), "b": 1},
        {"b": torch.arange(4.0), "a": 1},
        {"a": torch.arange(4.0).view(2, 2), "b": 1},
        {"a": torch.arange(4), "b": 1},
        {"a": torch.arange(4.0).bfloat16(), "b": 1},
        {"a": torch.arange(4.0), "b": 2},
        {"a": torch.tensor(0.0), "b": 1},
        {"a": torch.zeros(0), "b": [1]},
        {"a": torch.zeros(0), "b": [[1], [True, ""]]},
    ]
    assert len({digest(value) for value in values}) == len(values)
    assert digest(values[0]) == digest({"b": 1, "a": torch.arange(4.0)})
    assert digest(torch.arange(4.0).view(2, 2).T) == digest(torch.tensor([[0.0, 2.0], [1.0, 3.0]]))
