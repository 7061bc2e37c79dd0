"""Measure size and speed of a configuration's model at several widths, exported to sherpa-onnx.

The weights are random and the audio is noise, so neither a training nor a corpus is needed. The
same share of inner channels is cut from each feed-forward module, as `asrprune extract` cuts them.
Each width is exported in float32 and int8. All networks receive the same noise on one thread, in
turn. Streaming encoders receive the noise in pieces of 40 ms.

Milliseconds are medians of this process's CPU time. For streaming encoders, they are the time of
one chunk (encoder, joiner and search). For other encoders, they are the time of one second of audio
(features too). Random weights would emit symbols at random. So the joiner's bias makes every frame
a blank, as in silence: the joiner computes once per frame, and the predictor once per utterance. In
speech, the predictor also computes once for each symbol.

"channels" are the channels that each module keeps: rounded to weight_pruning.multiple, or all
channels. Sizes are bytes of the three files that a runtime loads. "parameters" are those of the
model, without the two layers that only the training uses. Of the options weight_pruning.* in the
configuration, only weight_pruning.multiple is used.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.base.files import write_json, write_text
from asrprune.base.markdown import table
from asrprune.base.randomness import keyed_generator, seed_global_generators
from asrprune.config import Config, load_config, override
from asrprune.data.tokenizer import SPECIAL
from asrprune.export.in_turn import (
    INT8,
    KINDS,
    headed,
    hear_in_turn,
    load_in_turn,
    milliseconds,
    number,
    with_ratios,
)
from asrprune.export.network import smaller
from asrprune.export.onnx_files import FEATURES, SUMMARY, sum_bytes, write_network
from asrprune.export.onnx_graph import check_packages
from asrprune.export.sherpa import RATE, import_sherpa
from asrprune.export.source import Source
from asrprune.training.banks import make_bank
from asrprune.training.generated import VOCABULARY
from asrprune.training.measuring import count
from asrprune.transducer.model import Transducer, build_model
from asrprune.weight_pruning.masks.groups import CHANNEL
from asrprune.weight_pruning.options import WeightPruningOptions

COLUMNS = (
    "width", "channels", "runs", "parameters", "MB", "of whole: bytes", "milliseconds",
    "of whole: time",
)  # fmt: skip
MULTIPLE = "weight_pruning.multiple"
LOUDNESS = 0.1  # standard deviation of the noise; samples are in [-1, 1]
WIDEST = "1"  # the name of width 1
NEVER = 100.0  # added to the score of blank, so that no other symbol is emitted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench shapes`` to a parser."""
    parser.add_argument("--config", type=Path, required=True, help="a YAML file")
    parser.add_argument(
        "--widths",
        nargs="+",
        default=["1.0", "0.75", "0.5", "0.25"],
        help="shares of the channels of each feed-forward module that are kept, above 0, at most 1",
    )
    parser.add_argument("--vocab-size", type=count, default=VOCABULARY, help="number of symbols")
    parser.add_argument("--seconds", type=count, default=10, help="duration of the noise")
    parser.add_argument(
        "--rounds", type=count, default=5, help="how often each width receives the noise"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")


def main(args: argparse.Namespace) -> None:
    """Export all widths, and print a table of their sizes and times."""
    torch.set_num_threads(1)
    check_packages()
    import_sherpa()
    words = [word for word in args.widths if "=" in word] + args.overrides
    widths = parse_widths([word for word in args.widths if "=" not in word])
    config = channel_config(args.config, words)
    if args.vocab_size <= len(SPECIAL):
        raise UserError(f"--vocab-size {args.vocab_size}: must be above {len(SPECIAL)}")
    with tempfile.TemporaryDirectory() as folder:
        networks = write_widths(config, widths, args.vocab_size, Path(folder))
        rows = measure(networks, Path(folder), noise(config.seed, args.seconds), args.rounds)
    sys.stdout.write(markdown(rows))


def channel_config(path: Path, words: Sequence[str]) -> Config:
    """Return a configuration whose feed-forward channels can be cut out.

    Args:
        path: the configuration, a YAML file.
        words: the overrides of the user.

    Raises:
        UserError: see `load_config`; an override of weight_pruning would have no effect; or
            sherpa-onnx computes other features.
    """
    for word in words:
        if word.startswith("weight_pruning") and not word.startswith(f"{MULTIPLE}="):
            raise UserError(
                f"{word}: only channels are cut here, the same share of each module. Leave the "
                f"word out, or set {MULTIPLE}"
            )
    multiples = [word for word in words if word.startswith(f"{MULTIPLE}=")]
    config = load_config(path, [word for word in words if word not in multiples])
    multiple = config.weight_pruning.multiple
    config.weight_pruning = WeightPruningOptions(unit=CHANNEL, multiple=multiple)
    config = override(config, multiples)
    if config.model.num_features != FEATURES:
        raise UserError(
            f"model.num_features={config.model.num_features}: sherpa-onnx computes {FEATURES}. "
            f"Set model.num_features={FEATURES}"
        )
    return config


def parse_widths(words: Sequence[str]) -> list[float]:
    """Read widths as shares of the channels.

    Raises:
        UserError: a width is no number above 0 and at most 1, or is named twice.
    """
    widths: list[float] = []
    for word in words:
        try:
            width = float(word)
        except ValueError:
            width = 0.0
        if not 0 < width <= 1:
            raise UserError(f"--widths {word}: is no share. Give numbers above 0, at most 1")
        if width in widths:
            raise UserError(f"--widths {word}: is named twice. Name each width once")
        widths.append(width)
    return widths


def write_widths(
    config: Config, widths: Sequence[float], vocab_size: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """Export a model of random weights in several widths.

    Args:
        config: the configuration of the model.
        widths: the shares of the channels that are kept.
        vocab_size: number of symbols.
        folder: the folder for the networks.

    Returns:
        Name of a width -> the entry of ``export.json``, with ``channels`` (the fewest and the most
        of a module) and ``parameters``.

    Raises:
        UserError: the model cannot be exported; it names no channels; or a width keeps no channel.
    """
    source = random_source(config, vocab_size)
    networks = {}
    for width in tqdm(widths, "export", disable=None):
        model, cut = smaller(source, 1 - width)
        options = {channels.option for channels in model.encoder.channels()}
        kept = [number for option in options for number in cut.model.encoder_options[option]]
        name = f"{width:g}"
        networks[name] = {
            **write_network(model, folder / name, True, f"width {name}")[0],
            "channels": [min(kept), max(kept)],
            "parameters": deployed_parameters(model),
        }
        symbols = [*SPECIAL, *map(str, range(len(SPECIAL), vocab_size))]
        lines = (f"{symbol} {index}\n" for index, symbol in enumerate(symbols))
        write_text(folder / name / "tokens.txt", "".join(lines))
    write_json(folder / SUMMARY, {"networks": networks})
    return networks


def random_source(config: Config, vocab_size: int) -> Source:
    """Return a model of random weights that emits no symbols, with the masks of its channels."""
    seed_global_generators(config.seed)
    model = build_model(config.model, config.loss, vocab_size).eval()
    for parameter in model.parameters():
        # Some branches begin with zeros. They would have no effect on the checked outputs.
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    with torch.no_grad():
        model.joiner.output.bias[0] += NEVER
    content = {"model": model.state_dict(), "config": asdict(config), "vocab_size": vocab_size}
    bank = make_bank(model, config.weight_pruning)
    return Source(Path("random weights"), model, config, content, bank, False)


def deployed_parameters(model: Transducer) -> int:
    """Return the number of parameters that are exported."""
    heads = {id(one) for head in (model.simple_am, model.simple_lm) for one in head.parameters()}
    return sum(one.numel() for one in model.parameters() if id(one) not in heads)


def noise(seed: int, seconds: int) -> np.ndarray:
    """Return samples (n,) float32 of noise."""
    generator = keyed_generator("noise of a benchmark", seed)
    return LOUDNESS * torch.randn(seconds * RATE, generator=generator).numpy()


def measure(
    networks: dict[str, dict[str, Any]], folder: Path, samples: np.ndarray, rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each width in float32 and int8.

    Args:
        networks: the result of `write_widths`.
        folder: the folder of the exported networks.
        samples: samples (n,) that all networks receive in each round. A first round is not counted.
        rounds: number of rounds.
    """
    recognisers = load_in_turn(networks, folder)
    hear_in_turn(recognisers, [samples])  # the first call includes the start of the runtime
    heard = hear_in_turn(recognisers, tqdm([samples] * rounds, "rounds", disable=None))
    seconds = [len(samples) / RATE] * rounds
    rows = [
        {
            "network": name,
            "runs": kind,
            "channels": about["channels"],
            "parameters": about["parameters"],
            **sum_bytes(about["files"], kind == INT8),
            **milliseconds(heard[name, kind], seconds),
            "texts": [one.text for one in heard[name, kind]],
        }
        for name, about in networks.items()
        for kind in KINDS
    ]
    return with_ratios(rows, WIDEST)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the rows."""
    lines = []
    for row in rows:
        lines.append(
            (
                row["network"],
                "-".join(map(str, sorted(set(row["channels"])))),
                row["runs"],
                f"{row['parameters'] / 1e6:.1f} M",
                number(row["bytes"], 1e-6, ".2f"),
                number(row.get("bytes_of_whole"), 1, ".3f"),
                number(row["milliseconds"], 1, ".2f"),
                number(row.get("time_of_whole"), 1, ".3f"),
            )
        )
    return table(headed(COLUMNS, rows), lines) + "\n"
