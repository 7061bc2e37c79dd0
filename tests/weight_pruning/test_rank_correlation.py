"""Spearman's coefficient against scipy's."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from asrprune.weight_pruning.search.rank_correlation import rank_correlation

VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, -3.0, math.inf]) | st.floats(allow_nan=False)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_as_scipy(pairs):
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants
        expected = float(spearmanr(a, b).statistic) if len(pairs) > 1 else math.nan
    assert rank_correlation(a, b) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_extremes():
    assert rank_correlation([1, 5, 9], [0.1, 0.2, 7]) == 1.0
    assert rank_correlation([1, 5, 9], [3, 2, 1]) == -1.0
    assert math.isnan(rank_correlation([1, 2, math.nan], [1, 2, 3]))
    with pytest.raises(ValueError, match="not pairs"):
        rank_correlation([1, 2], [1, 2, 3])
