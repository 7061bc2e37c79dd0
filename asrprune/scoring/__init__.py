"""Word and character error rates with confidence intervals, and result tables."""
