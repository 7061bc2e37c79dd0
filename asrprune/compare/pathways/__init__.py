"""Comparisons of sparse models of several languages, whose trainings start from each other."""
