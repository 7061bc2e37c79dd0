"""Comparisons of sparse models of several languages: trainings that go on from one another."""
