"""Masks over weights: blocks and units, their levels, the bank, and the gated optimiser."""
