"""Train speech-recognition transducers with less data and fewer weights."""

__version__ = "0.1.0"
