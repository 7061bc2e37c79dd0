"""Measure the speed and the memory of each part on this machine."""
