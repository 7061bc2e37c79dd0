"""Extract a sub-network from a model: write a model file that decodes by itself.

With weight_pruning.unit=channel, layer or head, the file holds a smaller network. Its configuration
names its sizes. The network trains and exports like any other model. With blocks, the file holds
the kept weights only, and the network has zeros in place of the other weights.

The masks are the masks of the training. A model that was trained without masks gets masks by its
weights (one-shot pruning). The overrides ``key=value`` may change its options weight_pruning.*.

--sparsity leaves this share of the pruned weights out of each layer. --budget takes the lowest
uniform sparsity within the budget. --language takes the pathway of this language. --pathways writes
the pathways of several languages to one file, which stores shared weights once. --search takes the
best sub-network of the search within the budget. With --search, a sparsity stands for the size of
the uniform sub-network of this sparsity. A JSON file beside the model names the sub-network and its
size.
"""

import argparse
import dataclasses
import logging
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.base.files import write_json
from asrprune.export.budget import parse_amount
from asrprune.export.choice import Wanted, choose
from asrprune.export.network import smaller
from asrprune.export.pathways_file import pathways_content
from asrprune.export.source import Source, open_source
from asrprune.training.checkpoint import save_checkpoint
from asrprune.training.model_file import description
from asrprune.weight_pruning.masks.packing import packed_state

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune extract`` to a parser."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--sparsity", type=float, help="share of the pruned layers to leave out")
    wanted.add_argument(
        "--budget",
        type=parse_amount,
        help="size of the int8 files that stage 10 writes, such as 5MB (not for unit=block); or "
        "multiply-adds of the encoder's weights for a second of speech, such as 120MMAC; or "
        "milliseconds of the int8 encoder for a chunk, or for a second of speech without "
        "streaming, on one thread of this machine, such as 1.2ms (not for unit=block)",
    )
    wanted.add_argument("--language", help="the pathway of this language (method=pathways)")
    wanted.add_argument(
        "--pathways",
        nargs="*",
        metavar="LANGUAGE",
        help="write the pathways of these languages (none named: of all) as one file. A weight "
        "that several languages keep is stored once. Each language adds a bit for each block or "
        "unit",
    )
    parser.add_argument(
        "--search",
        type=Path,
        help="a pareto.json (stage 7): take its best sub-network within the size",
    )
    parser.add_argument(
        "--output", type=Path, help="default: a file beside the model, such as sparsity-0.700.pt"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the sub-network as a model file."""
    source = open_source(args.model, args.overrides)
    if args.pathways is not None:
        if args.search:
            raise UserError("--search: is for sizes and sparsities, not for --pathways")
        _write_pathways(source, args)
        return
    wanted = _wanted(args)
    choice = choose(source, wanted, args.search)
    if args.language:
        source = source.of(choice)
    bank, content = source.bank, source.content
    if args.language:
        name = f"{choice}.pt"
    elif args.search:
        size = args.budget.written(between="") if args.budget else f"{args.sparsity:.3f}"
        name = f"searched-{size}.pt"
    else:
        name = f"sparsity-{choice:.3f}.pt"
    output = args.output or args.model.with_name(name)
    sparsity, kept = 1 - bank.density(choice), bank.kept_parameters(choice)
    dense = sum(parameter.numel() for parameter in source.model.parameters())
    if bank.cuts:
        model, config = smaller(source, choice)
        about = {**description(content), "config": dataclasses.asdict(config)}
        save_checkpoint({"model": model.state_dict(), **about}, output)
        held = "the file holds these alone"
    else:
        state = packed_state(content["model"], bank, choice)
        save_checkpoint({"model": state, **description(content), "sparsity": choice}, output)
        held = "the file holds these alone; a runtime loads and multiplies zeros for the others"
    write_json(
        output.with_suffix(".json"),
        {
            "model": str(args.model),
            "search": str(args.search) if args.search else None,
            "sparsity": sparsity,
            "density": 1 - sparsity,
            "parameters": kept,
            "dense_parameters": dense,
            "sparsities": choice,
        },
    )
    log.info(
        "%s: sparsity %.3f, %.3f M of %.3f M parameters; %s",
        output,
        sparsity,
        kept / 1e6,
        dense / 1e6,
        held,
    )


def _write_pathways(source: Source, args: argparse.Namespace) -> None:
    """Write the pathways of several languages as one file."""
    content = pathways_content(source, args.pathways)
    names = list(content["masks"]["bank"]["named"])
    output = args.output or args.model.with_name("pathways.pt")
    save_checkpoint(content, output)
    bank = source.bank
    told = {
        "model": str(args.model),
        "languages": names,
        "density": bank.density(bank.union(*names)),
        "densities": {name: bank.density(name) for name in names},
        "bytes": output.stat().st_size,
    }
    write_json(output.with_suffix(".json"), told)
    log.info(
        "%s: pathways of %s, %.3f of the weights that masks cover, %.2f MB",
        *(output, ", ".join(names), told["density"], told["bytes"] / 1e6),
    )


def _wanted(args: argparse.Namespace) -> Wanted:
    if args.budget:
        return Wanted("--budget", budget=args.budget)
    if args.language:
        return Wanted(f"--language {args.language}", language=args.language)
    return Wanted(f"--sparsity {args.sparsity:g}", sparsity=args.sparsity)
