"""Train models: trainer, checkpoints, averaging and distributed ranks."""
