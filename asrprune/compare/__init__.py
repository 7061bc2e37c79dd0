"""Comparisons of many trainings: they run the trainings, judge claims, and write results."""
