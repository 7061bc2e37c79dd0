"""Synthetic speech for rehearsals, in the directory layouts of real corpora."""
