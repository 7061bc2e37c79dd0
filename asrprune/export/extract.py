"""Extract a sub-network: a model file that decodes by itself, and its packed form beside it.

The masks are those of the training, or for a model that was trained without any, of its weights
(one-shot pruning, with the options weight_pruning.* that ``key=value`` words may change). With
--budget, the least sparsity, the same in all layers, whose packed weights fit.
"""

import argparse
import logging
import re
from pathlib import Path
from typing import Any

from asrprune.config import Config, override
from asrprune.decoding.load import load_model
from asrprune.errors import UserError
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.blocks import LEVELS
from asrprune.weight_pruning.options import parse_block
from asrprune.weight_pruning.pack import pack, packed_bytes, unpack, write_packed
from asrprune.weight_pruning.prunable import find_layers

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
SPARSEST = 0.996  # of what was trained without masks: the last level that keeps anything

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune extract``."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--sparsity", type=float, help="share of the pruned layers to leave out")
    wanted.add_argument("--budget", type=parse_bytes, help="size in the packed file, such as 5MB")
    parser.add_argument(
        "--output", type=Path, help="default: beside the model, such as sparsity-0.700.pt"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the sub-network as a model file, and packed."""
    model, config = load_model(args.model, "cpu")
    content = load_checkpoint(args.model)
    masks = content.get("masks")
    if masks and args.overrides:
        raise UserError(
            f"{args.model} has the masks of its training: leave out {' '.join(args.overrides)}"
        )
    config = override(config, args.overrides)
    bank = make_bank(model, config, masks)
    most = masks["sparsity"] if masks else SPARSEST
    if args.budget is None:
        if not 0 <= args.sparsity <= 1:
            raise UserError(f"--sparsity {args.sparsity}: must be between 0 and 1")
        sparsity = args.sparsity
        if sparsity > most + 1e-9:
            log.warning("--sparsity %g: no sub-network above %g was trained", sparsity, most)
    else:
        sparsity = within_budget(bank, args.budget, most)
    packed = pack(content["model"], bank, sparsity)
    output = args.output or args.model.with_name(f"sparsity-{sparsity:.3f}.pt")
    sizes = bank.sizes(sparsity)
    about = {key: content[key] for key in ("config", "vocab_size", "tokenizer_digest")}
    save_checkpoint({"model": unpack(packed), **about, "sparsity": sparsity}, output)
    write_packed(packed, output.with_suffix(".packed"))
    log.info(
        "%s: sparsity %.3f, %.3f M of %.3f M parameters; %s: %.3f MB",
        output,
        sparsity,
        sizes.parameters / 1e6,
        sizes.dense_parameters / 1e6,
        output.with_suffix(".packed"),
        packed_bytes(packed) / 1e6,
    )


def make_bank(model: Transducer, config: Config, masks: dict[str, Any] | None) -> MaskBank:
    """The masks of a model: those that it was trained with, or by its weights.

    :raises UserError: options that do not fit to the model.
    """
    options = config.weight_pruning
    block = parse_block(options.block)
    layers = find_layers(
        model, block, options.include, options.exclude, options.recurrent, options.ragged
    )
    bank = MaskBank(model, layers, block, options.criterion, options.scope)
    if masks:
        bank.load_state_dict(masks["bank"])
    return bank


def within_budget(bank: MaskBank, budget: float, most: float) -> float:
    """The least sparsity on the grid whose packed sub-network has at most ``budget`` bytes.

    :raises UserError: that of sparsity ``most`` has more.
    """
    last = int(most * LEVELS + 1e-6)
    smallest = bank.sizes(last / LEVELS).float32_bytes
    if smallest > budget:
        raise UserError(
            f"--budget: {budget / 1e6:g} MB are less than the smallest sub-network has, "
            f"{smallest / 1e6:.3f} MB at sparsity {last / LEVELS:g}"
        )
    low, high = -1, last  # the bytes of `high` fit
    while high - low > 1:
        middle = (low + high) // 2
        if bank.sizes(middle / LEVELS).float32_bytes <= budget:
            high = middle
        else:
            low = middle
    return high / LEVELS


def parse_bytes(text: str) -> float:
    """``5MB`` to bytes; units are powers of 1000.

    :raises argparse.ArgumentTypeError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB)", text)
    if not found or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size, such as 800kB or 5MB")
    return float(found[1]) * UNITS[found[2]]
