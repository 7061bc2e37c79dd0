"""Fixtures of the tests of decoding and training, whose parts are measured."""

from tests.decoding.conftest import _one_thread  # noqa: F401
from tests.training.conftest import train_command  # noqa: F401
