"""Comparisons of ways to models of every size: a training a size, one for all, or one-shot."""
