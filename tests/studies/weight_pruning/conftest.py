"""Comparisons of sparse models."""

from tests.studies.weight_pruning.networks import study  # noqa: F401 (a fixture)
