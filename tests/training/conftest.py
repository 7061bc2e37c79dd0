"""Fixtures around ``asrprune train``."""

import logging

import pytest

from tests.training.command import TrainCommand, make_command
from tests.training.masked_cases import masked_config, trainer_of


@pytest.fixture
def train_command(tmp_path, tiny_corpus, caplog) -> TrainCommand:
    """A command whose log goes to ``caplog``."""
    caplog.set_level(logging.INFO)
    return make_command(tmp_path, tiny_corpus)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, tiny_corpus) -> TrainCommand:
    """A training that nothing interrupted. Not to be changed."""
    command = make_command(tmp_path_factory.mktemp("whole"), tiny_corpus)
    assert command() == 0
    return command


@pytest.fixture
def make_masked_trainer(tiny_corpus, tmp_path):
    """``make_masked_trainer(folder, masking, **options)``: at its start, alone."""

    def make(folder, masking, **options):
        config = masked_config(tiny_corpus, masking, **options)
        return trainer_of(config, tiny_corpus, tmp_path / folder)

    return make
