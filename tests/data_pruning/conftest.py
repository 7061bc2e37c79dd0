"""What tests of samplers share."""

import pytest

from asrprune.data_pruning import sampler as sampler_module


@pytest.fixture
def ranks_apart(monkeypatch):
    """Samplers of several ranks in one process, where they have nothing to tell each other."""
    monkeypatch.setattr(sampler_module, "sum_over_ranks", lambda tensors, world: tensors)
    monkeypatch.setattr(sampler_module, "check_equal", lambda *_, **__: None)
