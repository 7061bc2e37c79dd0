"""Measure time, memory and size of losses, masks, pruning, exports and training on this machine."""

import argparse
import importlib

from asrprune.base.arguments import add_verbs

# benchmark -> (module, one line of help); a module is imported only when its benchmark runs
_BENCHMARKS = {
    "export": ("asrprune.bench.export", "exported networks in sherpa-onnx"),
    "loss": ("asrprune.bench.loss", "pruned loss against torchaudio's full one"),
    "masks": ("asrprune.bench.masks", "masks of weights, and gated steps"),
    "pathways": ("asrprune.bench.pathways", "switching languages while decoding"),
    "pruning": ("asrprune.bench.pruning", "plans, and the pruning sampler"),
    "recipe": ("asrprune.bench.recipe", "what a training costs on this device"),
    "shapes": ("asrprune.bench.shapes", "size and speed of widths, random weights"),
    "supernet": ("asrprune.bench.supernet", "gradual and supernet steps against dense ones"),
    "train": ("asrprune.bench.train", "the training loop"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks to the parser of ``asrprune bench``."""
    add_verbs(parser, _BENCHMARKS)


def main(args: argparse.Namespace) -> int | None:
    """Run a benchmark and return its exit status."""
    return importlib.import_module(_BENCHMARKS[args.what][0]).main(args)
