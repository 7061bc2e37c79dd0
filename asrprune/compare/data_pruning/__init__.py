"""Comparisons of data pruning: methods that train on a part of the data."""
