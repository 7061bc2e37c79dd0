"""Comparisons of methods for sparse models of several sizes: gradual, supernet, one-shot."""
