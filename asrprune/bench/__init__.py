"""Benchmarks: what this machine makes of each part."""
