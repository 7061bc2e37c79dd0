"""Comparisons of ways to train on less data."""
