"""Comparisons of many trainings, the search for sub-networks, and the report on pathways."""
