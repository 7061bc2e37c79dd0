"""Extract a sub-network: a model file that decodes by itself, and its packed form beside it.

The masks are those of the training, or for a model that was trained without any, of its weights
(one-shot pruning, with the options weight_pruning.* that ``key=value`` words may change). With
--budget, the least sparsity, the same in all layers, whose packed weights fit; with --search, the
best sub-network within the budget that a search has found, or within the size that one sparsity for
all layers gives; with --language, that language's pathway. A JSON beside the model says what was
taken, and how large it is.
"""

import argparse
import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from asrprune.config import Config, override
from asrprune.corpus.tokenizer import Tokenizer
from asrprune.decoding.load import load_model
from asrprune.errors import UserError
from asrprune.export.budget import BYTES, Amount, Measure, parse_amount
from asrprune.files import read_json, write_json
from asrprune.training.checkpoint import load_checkpoint, save_checkpoint
from asrprune.training.masking import make_bank
from asrprune.training.model_file import description
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.bank import MaskBank
from asrprune.weight_pruning.options import Block
from asrprune.weight_pruning.pack import pack, packed_bytes, unpack, write_packed
from asrprune.weight_pruning.pathways import pathway_of

SPARSEST = 0.996  # of what was trained without masks: the last level that keeps anything

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``asrprune extract``."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--sparsity", type=float, help="share of the pruned layers to leave out")
    wanted.add_argument(
        "--budget",
        type=parse_amount,
        help="size in the packed file, such as 5MB, or multiply-adds of the encoder's weights for "
        "a second of speech, such as 120MMAC",
    )
    wanted.add_argument("--language", help="the pathway of a language, of a model that has them")
    parser.add_argument(
        "--search", type=Path, help="a pareto.json (stage 7): the best of these of that size"
    )
    parser.add_argument(
        "--output", type=Path, help="default: beside the model, such as sparsity-0.700.pt"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the sub-network as a model file, and packed."""
    source = open_source(args.model, args.overrides)
    bank, content = source.bank, source.content
    choice: float | str | dict[str, float]
    if args.language:
        choice = _pathway(args, source)
        name = f"{choice}.pt"
    elif args.search:
        choice = _searched(args, source)
        size = args.budget.written(between="") if args.budget else f"{args.sparsity:.3f}"
        name = f"searched-{size}.pt"
    else:
        choice = _uniform(args, source)
        name = f"sparsity-{choice:.3f}.pt"
    packed = pack(content["model"], bank, choice)
    output = args.output or args.model.with_name(name)
    sizes, sparsity = bank.sizes(choice), 1 - bank.density(choice)
    network = {"model": unpack(packed), **description(content), "sparsity": choice}
    save_checkpoint(network, output)
    write_packed(packed, output.with_suffix(".packed"))
    write_json(
        output.with_suffix(".json"),
        {
            "model": str(args.model),
            "search": str(args.search) if args.search else None,
            "sparsity": sparsity,
            "density": 1 - sparsity,
            "parameters": sizes.parameters,
            "dense_parameters": sizes.dense_parameters,
            "bytes": sizes.float32_bytes,
            "int8_bytes": sizes.int8_bytes,
            "sparsities": choice,
        },
    )
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
        if self.trained:
            return self.content["masks"]["sparsity"]
        return sparsest_untrained(self.bank.block)

    @property
    def single(self) -> bool:
        """Whether it is one network, pruned gradually, and has no other sizes."""
        return self.trained and self.config.weight_pruning.method == "gradual"

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
    # on the CPU: the same ranks whatever the device
    bank = make_bank(model, config.weight_pruning, masks)
    return Source(path, model.to(device), config, content, bank, bool(masks))


def sparsest_untrained(block: Block) -> float:
    """The sparsity that no sub-network is above of what was trained without masks."""
    return min(SPARSEST, block.sparsity or SPARSEST)


def searched(path: Path, budget: Amount, source: Source) -> dict[str, float]:
    """The sparsities of the best sub-network of a ``pareto.json`` that is within a budget.

    :raises UserError: the file is missing, another one, or of another model; none is within.
    """
    content = read_json(path)
    try:
        digest, name = content["model_digest"], content["model"]
        networks = [one["best"] for one in content["budgets"]]
        sizes = [one[budget.unit] for one in networks]
        ranked = sorted(networks, key=lambda one: (one["fitness"], one["bytes"]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no pareto.json; the search stage (7) makes it") from error
    if digest != source.digest:
        raise UserError(
            f"{path} is of another model than {source.path}, or of other masks of it: of {name} "
            "as it was. Search again (stage 7)"
        )
    if None in sizes:
        raise UserError(f"{path} knows no multiply-adds: give the budget in bytes, such as 5MB")
    for network in ranked:
        if network[budget.unit] <= budget.value:
            return network["sparsities"]
    raise UserError(
        f"{budget.written()} are less than the smallest sub-network of {path} has, "
        f"{Amount(min(sizes), budget.unit)}; search with --budgets {budget.written(between='')}"
    )


def _searched(args: argparse.Namespace, source: Source) -> dict[str, float]:
    """The best of a search within the budget, or within the size at the sparsity asked for."""
    size = args.budget or Amount(source.bank.sizes(_sparsity(args)).float32_bytes, BYTES)
    return searched(args.search, size, source)


def _pathway(args: argparse.Namespace, source: Source) -> str:
    if args.search:
        raise UserError("--search: is for a supernet; leave it out, or --language")
    try:
        return pathway_of(source.bank.names, args.language)
    except UserError as error:
        raise UserError(f"--language {args.language}: {source.path}: {error}") from error


def _sparsity(args: argparse.Namespace) -> float:
    if not 0 <= args.sparsity <= 1:
        raise UserError(f"--sparsity {args.sparsity}: must be between 0 and 1")
    return args.sparsity


def _uniform(args: argparse.Namespace, source: Source) -> float:
    """The sparsity of all layers that was asked for."""
    if source.bank.names:
        raise UserError(
            f"{source.path} has a pathway for each language, and no sizes: take one out with "
            f"--language, such as {source.bank.names[0]}"
        )
    if args.budget:
        measure = Measure(source.model, source.bank, args.budget.unit)
        found = measure.within(args.budget.value, source.sparsest)
        return source.sparsest if source.single else found
    if source.single and abs(_sparsity(args) - source.sparsest) > 1e-9:
        raise UserError(
            f"--sparsity {args.sparsity:g}: {source.path} was pruned gradually, and has the one "
            f"size of sparsity {source.sparsest:g}; other sizes are in a supernet "
            "(weight_pruning.method=supernet)"
        )
    if _sparsity(args) > source.sparsest + 1e-9:
        log.warning(
            "--sparsity %g: no sub-network above %g was trained", args.sparsity, source.sparsest
        )
    return args.sparsity
