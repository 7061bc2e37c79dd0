"""Measure what this machine makes of the loss, masks, pathways, data pruning and training."""

import argparse
import importlib

from asrprune.base.arguments import Parser
from asrprune.base.errors import nearest

# what -> (module, one line of help); imported only when it is asked for
_BENCHMARKS = {
    "export": ("asrprune.bench.export", "exported networks in sherpa-onnx"),
    "loss": ("asrprune.bench.loss", "pruned loss against torchaudio's full one"),
    "masks": ("asrprune.bench.masks", "masks of weights, and gated steps"),
    "pathways": ("asrprune.bench.pathways", "switching languages while decoding"),
    "pruning": ("asrprune.bench.pruning", "plans, and the pruning sampler"),
    "recipe": ("asrprune.bench.recipe", "what a training costs on this device"),
    "shapes": ("asrprune.bench.shapes", "size and speed of widths, random weights"),
    "supernet": (
        "asrprune.bench.supernet",
        "gradual and supernet steps against dense ones",
    ),
    "train": ("asrprune.bench.train", "the training loop"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    choices = parser.add_subparsers(
        dest="what", metavar="|".join(_BENCHMARKS), required=True, parser_class=_LazyParser
    )
    for what, (module, text) in _BENCHMARKS.items():
        choices.add_parser(what, module=module, help=text)


def main(args: argparse.Namespace) -> int | None:
    return importlib.import_module(_BENCHMARKS[args.what][0]).main(args)


class _LazyParser(Parser):
    """A parser that imports its module and takes its arguments when it has something to parse."""

    def __init__(self, *args, module: str, **kwargs):
        super().__init__(*args, **kwargs)
        self._module: str | None = module

    def parse_known_args(self, args=None, namespace=None):
        if self._module:
            module = importlib.import_module(self._module)
            self._module = None
            self.description = module.__doc__
            module.add_arguments(self)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            self.error(f"unknown option {option}{nearest(option, self._option_string_actions)}")
        return parsed, unknown
