"""Comparisons of the costs of methods at equal error rates."""
