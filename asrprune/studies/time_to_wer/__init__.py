"""Comparisons of what methods cost until they reach the same error rate."""
