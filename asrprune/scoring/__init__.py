"""Measure word and character error rates with confidence intervals, and write result tables."""
