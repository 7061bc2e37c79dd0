"""Comparisons of sparse models."""

from tests.compare.weight_pruning.networks import study  # noqa: F401 (a fixture)
