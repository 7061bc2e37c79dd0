"""Give activations a wide range, without changing what a Conformer computes in float32.

A few channels of a layer norm are multiplied by a factor, and the columns that the next matrix has
for them are divided by it. Int8 has one scale for all channels of an activation. The large channels
set this scale, and the other channels keep few of its values. Long training makes such channels.

    python -m tests.export.widen averaged.pt wide/averaged.pt --factor 100 \\
      --matrices encoder.layers.0.ffn1.sequential.1.weight
"""

import argparse
from pathlib import Path

from torch import Tensor

from asrprune.training.checkpoint import load_checkpoint, save_checkpoint

# how the name of a matrix ends -> of the norm before it
NORMS = {
    "ffn1.sequential.1.weight": "ffn1.sequential.0",
    "ffn2.sequential.1.weight": "ffn2.sequential.0",
    "self_attn.in_proj_weight": "self_attn_layer_norm",
    "conv_module.sequential.0.weight": "conv_module.layer_norm",
}


def widen(state: dict[str, Tensor], matrix: str, channels: int, factor: float) -> None:
    """Multiply the first channels before a matrix by a factor, and divide its columns by it."""
    [(end, norm)] = [pair for pair in NORMS.items() if matrix.endswith(pair[0])]
    for name in ("weight", "bias"):
        state[f"{matrix.removesuffix(end)}{norm}.{name}"][:channels] *= factor
    state[matrix][:, :channels] /= factor


def widen_file(path: Path, out: Path, matrices: list[str], channels: int, factor: float) -> None:
    """Do the same with a model file."""
    content = load_checkpoint(path)
    for matrix in matrices:
        widen(content["model"], matrix, channels, factor)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(content, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--matrices", nargs="+", required=True)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--factor", type=float, default=100.0)
    given = parser.parse_args()
    widen_file(given.model, given.out, given.matrices, given.channels, given.factor)
