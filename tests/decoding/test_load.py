"""Model files: what loads decodes the same, what does not says why."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.decoding.load import load_model
from asrprune.training.checkpoint import save_checkpoint
from asrprune.transducer.model import build_model

from .conftest import tiny_options


@pytest.fixture
def saved(tmp_path):
    config = Config(model=tiny_options("lstm"))
    model = build_model(config.model, config.loss, 6)
    content = {
        "model": model.state_dict(),
        "config": dataclasses.asdict(config),
        "vocab_size": 6,
        "tokenizer_digest": "abc",
    }
    path = tmp_path / "averaged.pt"
    save_checkpoint(content, path)
    return path, content, model, config


def test_loads_what_was_saved(saved):
    path, _, model, config = saved
    loaded, found = load_model(path, "cpu", SimpleNamespace(digest="abc"))
    assert found == config and not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_another_tokenizer_is_refused(saved):
    with pytest.raises(UserError, match="another tokenizer"):
        load_model(saved[0], "cpu", SimpleNamespace(digest="other"))


def test_a_missing_file_names_its_stage(tmp_path):
    with pytest.raises(UserError, match="stage \\(6\\) makes it"):
        load_model(tmp_path / "averaged.pt", "cpu")


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_damaged_file_is_named(saved, share):
    path = saved[0]
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match="averaged.pt is damaged"):
        load_model(path, "cpu")


def test_a_file_that_runs_code_is_not_run(tmp_path):
    torch.save({"model": pytest.raises}, tmp_path / "m.pt")
    with pytest.raises(UserError, match="m.pt is damaged, no model file.*stage \\(6\\)"):
        load_model(tmp_path / "m.pt", "cpu")


def test_files_of_another_kind(saved):
    path, content, _, _ = saved
    for other in ([1, 2], content, {**content, "format": 99}):  # bare weights, another version's
        torch.save(other, path)
        with pytest.raises(UserError, match="another version of asrprune; the average stage"):
            load_model(path, "cpu")
    save_checkpoint({"model": {}}, path)
    with pytest.raises(UserError, match="no 'config' in it"):
        load_model(path, "cpu")
    save_checkpoint({**content, "vocab_size": 7}, path)
    with pytest.raises(UserError, match="weights do not fit"):
        load_model(path, "cpu")
