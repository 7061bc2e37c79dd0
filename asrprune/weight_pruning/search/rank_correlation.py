"""Compute Spearman's rank correlation: do two measures order sub-networks alike."""

from collections.abc import Sequence

import numpy as np


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's coefficient, -1 to 1: Pearson's coefficient of the ranks.

    Equal values share their mean rank. The result is NaN where there is no coefficient: fewer than
    two pairs, a constant, or a NaN among the values.

    Raises:
        ValueError: the lengths differ.
    """
    values = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if values[0].shape != values[1].shape or values[0].ndim != 1:
        raise ValueError(f"{len(a)} values and {len(b)}: not pairs")
    if any(np.isnan(x).any() or len(np.unique(x)) < 2 for x in values):
        return float("nan")
    return float(np.corrcoef(_ranks(values[0]), _ranks(values[1]))[0, 1].clip(-1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks (n,) from 1; equal values get the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]
