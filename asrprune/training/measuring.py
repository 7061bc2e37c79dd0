"""Share options, sizes on disk and printed lines between the benchmarks of masks."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from asrprune.base.errors import UserError
from asrprune.weight_pruning.options import Block, parse_block

NAMES, NAMED = 20, 25.0  # target: this number of named masks takes at most this many MB


def add_common_arguments(parser: argparse.ArgumentParser, sparsity: str) -> None:
    """Add the options of the Emformer and of its measurement.

    Args:
        parser: the parser.
        sparsity: the help text of ``--sparsity``.
    """
    parser.add_argument("--layers", type=int, default=20, help="of the Emformer")
    parser.add_argument("--dim", type=int, default=512, help="its width, a multiple of 16")
    parser.add_argument("--ffn-dim", type=int, default=2048, help="of its feed-forward layers")
    parser.add_argument("--block", type=_block, default="8x1", help="rows x columns, or N:M")
    parser.add_argument("--sparsity", type=float, default=0.7, help=sparsity)
    parser.add_argument("--rounds", type=count, default=5, help="of each measurement")
    parser.add_argument("--threads", type=count, default=2)


def megabytes(content: Any) -> float:
    """Return the size of tensors on disk, in MB (1e6 bytes)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "content.pt"
        torch.save(content, path)
        return path.stat().st_size / 1e6


def _block(text: str) -> Block:
    try:
        return parse_block(text, "--block")
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def count(text: str) -> int:
    """Read a whole number that is at least 1; the type of an option.

    Raises:
        argparse.ArgumentTypeError: the text is not such a number.
    """
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def target(value: float, limit: float, unit: str) -> str:
    """Return the text after a measured value: its target, and whether the value misses it.

    Args:
        value: the measured value.
        limit: the target, the largest value that is wanted.
        unit: the unit of both.
    """
    return f" (wanted: at most {limit:g} {unit}{'' if value <= limit else '; MISSED'})"


def say(line: str) -> None:
    """Print a line and flush it, because the next line may take long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
