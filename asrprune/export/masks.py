"""Prune a model once: write masks over its weights. A training of pathways can begin with them.

The output is a model file with all weights of the model, and masks. Name this file with
weight_pruning.pathways.masks in the training. A model without masks gets a mask of its largest
weights (one-shot magnitude pruning). The overrides ``key=value`` may change its options
weight_pruning.*. If the model has a mask, or a mask for each language, each mask keeps the best of
the weights that it kept before.

For iterative magnitude pruning, alternate a training and this command. For the iterative pruning of
lottery tickets (Frankle and Carbin 2019, arXiv 1803.03635), each training uses the new masks and
the weights of an earlier model (training.init_from).
"""

import argparse
import dataclasses
import logging
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.config import override
from asrprune.export.source import Source, open_source
from asrprune.training.checkpoint import save_checkpoint
from asrprune.training.model_file import description
from asrprune.training.own_weights import own_weights_of
from asrprune.weight_pruning.pathways import narrow

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune masks`` to a parser."""
    parser.add_argument("--model", type=Path, required=True, help="an averaged.pt (stage 6)")
    parser.add_argument(
        "--sparsity", type=float, required=True, help="share of the pruned layers to leave out"
    )
    parser.add_argument(
        "--output", type=Path, help="default: a file beside the model, such as pruned-0.500.pt"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Write the model with masks of the sparsity."""
    source = open_source(args.model, args.overrides)
    _check_sparsity(args.sparsity, source)
    bank, content, config = source.bank, source.content, source.config
    before = source.sparsest if source.single else 0.0
    if bank.names:
        for name in bank.names:
            narrow(bank, name, args.sparsity)
    elif before:
        bank.refresh(among=before)
    if not source.trained:  # the new file needs the configuration of a pruned model
        words = ["weight_pruning.method=gradual", f"weight_pruning.schedule.final={args.sparsity}"]
        config = override(config, words)
    output = args.output or args.model.with_name(f"pruned-{args.sparsity:.3f}.pt")
    about = {**description(content), "config": dataclasses.asdict(config)}
    masks = {"sparsity": args.sparsity, "bank": bank.state_dict()}
    if own := own_weights_of(content):
        masks["own"] = own
    save_checkpoint({"model": content["model"], **about, "masks": masks}, output)
    for choice in bank.names or [args.sparsity]:
        log.info("%s: mask %s keeps %.4f of the weights", output, choice, bank.density(choice))


def _check_sparsity(sparsity: float, source: Source) -> None:
    """Check that a model can be pruned to a sparsity.

    Args:
        sparsity: the value of ``--sparsity``.
        source: the model to prune.

    Raises:
        UserError: the sparsity is not between 0 and 1; the model is a supernet; or a mask of the
            model is sparser already.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"--sparsity {sparsity}: must be between 0 and 1")
    if not source.trained:
        return
    if source.config.weight_pruning.method not in ("gradual", "pathways"):
        raise UserError(
            f"{source.path} is a supernet, with sub-networks of every sparsity: take one out with "
            "asrprune extract --sparsity"
        )
    bank = source.bank
    densities = {name: bank.density(name) for name in bank.names}
    densities = densities or {"the mask": bank.density(source.sparsest)}
    for name, density in densities.items():
        if bank.density(sparsity) > density + 1e-9:
            raise UserError(
                f"--sparsity {sparsity:g}: {name} of {source.path} keeps {density:.3f} of the "
                "weights already, and pruning brings none back"
            )
