"""The training loop: trainer, checkpoints, averaging, distributed ranks."""
