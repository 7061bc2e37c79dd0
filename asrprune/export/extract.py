"""Extract a sub-network: a model file that decodes by itself, and its packed form beside it.

The masks are those of the training, or for a model that was trained without any, of its weights
(one-shot pruning, with the options weight_pruning.* that ``key=value`` words may change). With
--budget, the least sparsity, the same in all layers, whose packed weights fit; with --search too,
the best sub-network of that size that a search has found.
"""

import argparse
import hashlib
import json
import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asrprune.config import Config, override
from asrprune.corpus.tokenizer import Tokenizer
from asrprune.decoding.load import load_model
from asrprune.errors import UserError
from asrprune.files import read_json
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.training.masking import layers_of
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.blocks import LEVELS
from asrprune.weight_pruning.pack import pack, packed_bytes, unpack, write_packed

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
        "--search", type=Path, help="a pareto.json (stage 7): with --budget, the best of these"
    )
    parser.add_argument(
        "--output", type=Path, help="default: beside the model, such as sparsity-0.700.pt"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the sub-network as a model file, and packed."""
    if args.search and args.budget is None:
        raise UserError("--search: say how large the sub-network may be, as in --budget 5MB")
    source = open_source(args.model, args.overrides)
    bank, content = source.bank, source.content
    choice: float | dict[str, float]
    if args.search:
        choice = searched(args.search, args.budget, source)
        name = f"searched-{args.budget / 1e6:g}MB.pt"
    else:
        choice = _uniform(args, source)
        name = f"sparsity-{choice:.3f}.pt"
    packed = pack(content["model"], bank, choice)
    output = args.output or args.model.with_name(name)
    sizes, sparsity = bank.sizes(choice), 1 - bank.density(choice)
    about = {key: content[key] for key in ("config", "vocab_size", "tokenizer_digest")}
    save_checkpoint({"model": unpack(packed), **about, "sparsity": choice}, output)
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


@dataclass(frozen=True)
class Source:
    """A model to take sub-networks out of."""

    path: Path
    model: Transducer
    config: Config
    content: dict[str, Any]  # of its file
    bank: MaskBank
    trained: bool  # its masks are those of its training

    @property
    def sparsest(self) -> float:
        """The sparsity that no sub-network is above."""
        return self.content["masks"]["sparsity"] if self.trained else SPARSEST

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.feature_mean.device

    @cached_property
    def digest(self) -> str:
        """Of the weights, the config and the masks: the same sub-networks come of equal ones."""
        code = hashlib.blake2b(json.dumps(self.content["config"]).encode(), digest_size=16)
        for name, value in self.content["model"].items():
            code.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            code.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
        code.update(self.bank.digest().encode())
        return code.hexdigest()


def open_source(
    path: Path,
    words: list[str],
    device: torch.device | str = "cpu",
    tokenizer: Tokenizer | None = None,
) -> Source:
    """Read a model file and its masks, or make these of its weights.

    :param words: changes to the options of weight pruning, where it has no masks.
    :raises UserError: as of `load_model` and `make_bank`; words for a model with masks.
    """
    model, config = load_model(path, "cpu", tokenizer)
    content = load_checkpoint(path)
    masks = content.get("masks")
    if masks and words:
        raise UserError(f"{path} has the masks of its training: leave out {' '.join(words)}")
    config = override(config, words)
    bank = make_bank(model, config, masks)  # on the CPU: the same ranks whatever the device
    return Source(path, model.to(device), config, content, bank, bool(masks))


def searched(path: Path, budget: float, source: Source) -> dict[str, float]:
    """The sparsities of the best sub-network of a ``pareto.json`` that is within a budget.

    :raises UserError: the file is missing, another one, or of another model; none is within.
    """
    content = read_json(path)
    try:
        digest, name = content["model_digest"], content["model"]
        networks = [one["best"] for one in content["budgets"]]
        sizes = [one["bytes"] for one in networks]
        ranked = sorted(networks, key=lambda one: (one["fitness"], one["bytes"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no pareto.json; the search stage (7) makes it") from error
    if digest != source.digest:
        raise UserError(
            f"{path} is of another model than {source.path}, or of other masks of it: of {name} "
            "as it was. Search again (stage 7)"
        )
    for network in ranked:
        if network["bytes"] <= budget:
            return network["sparsities"]
    raise UserError(
        f"--budget: {budget / 1e6:g} MB are less than the smallest sub-network of {path} has, "
        f"{min(sizes) / 1e6:.3f} MB; search with --budgets {budget / 1e6:g}MB"
    )


def _uniform(args: argparse.Namespace, source: Source) -> float:
    """The sparsity of all layers that was asked for."""
    if args.budget is not None:
        return within_budget(source.bank, args.budget, source.sparsest)
    if not 0 <= args.sparsity <= 1:
        raise UserError(f"--sparsity {args.sparsity}: must be between 0 and 1")
    if args.sparsity > source.sparsest + 1e-9:
        log.warning(
            "--sparsity %g: no sub-network above %g was trained", args.sparsity, source.sparsest
        )
    return args.sparsity


def make_bank(model: Transducer, config: Config, masks: dict[str, Any] | None) -> MaskBank:
    """The masks of a model: those that it was trained with, or by its weights.

    :raises UserError: options that do not fit to the model.
    """
    options = config.weight_pruning
    layers, block = layers_of(model, options)
    bank = MaskBank(model, layers, block, options.criterion, options.scope)
    if masks:
        bank.load_state_dict(masks["bank"])
    return bank


def within_budget(bank: MaskBank, budget: float, most: float, option: str = "--budget") -> float:
    """The least sparsity on the grid whose packed sub-network has at most ``budget`` bytes.

    :raises UserError: that of sparsity ``most`` has more.
    """
    last = int(most * LEVELS + 1e-6)
    smallest = bank.sizes(last / LEVELS).float32_bytes
    if smallest > budget:
        raise UserError(
            f"{option}: {budget / 1e6:g} MB are less than the smallest sub-network has, "
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
