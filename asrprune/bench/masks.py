"""Measure the cost of masks of a large model: ranking, switching, storing, gated optimiser steps.

The model is an Emformer as large as published models. It has the layers, the optimiser and the
sub-networks of a training. Each time is the median of some rounds. Measurements that are compared
take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from tqdm import tqdm

from asrprune.config import Config
from asrprune.training.measuring import NAMED, NAMES, add_common_arguments, megabytes, say, target
from asrprune.training.optimizer import make_optimizer
from asrprune.transducer.emformer import emformer
from asrprune.weight_pruning.masks.bank import Choice, MaskBank
from asrprune.weight_pruning.masks.gated import GatedOptimizer
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import SupernetOptions, WeightPruningOptions
from asrprune.weight_pruning.supernet import Sparsities, sub_networks

# This benchmark needs a model. The package weight_pruning knows no models, so it is not there.
RANKING, SWITCH = 1000.0, 40.0  # targets in ms, for the default size on two cores
SPARSEST = 0.9  # the highest sparsity of the drawn sub-networks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench masks`` to a parser."""
    add_common_arguments(parser, "sparsity of the mask that does not change")


def main(args: argparse.Namespace) -> None:
    """Print a line for each measurement, with its target if there is one."""
    torch.set_num_threads(args.threads)
    sizes = {"num_layers": args.layers, "dim": args.dim, "ffn_dim": args.ffn_dim}
    model = nn.ModuleDict({"encoder": emformer(80, **sizes)})
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # some layers begin with zeros, which cannot be ranked by size
        for parameter in model.parameters():
            parameter.normal_(std=0.05, generator=generator)
            parameter.grad = torch.empty_like(parameter).normal_(std=0.01, generator=generator)
    layers = find_layers(model, args.block, WeightPruningOptions().include)
    bank = MaskBank(model, layers)
    total = sum(parameter.numel() for parameter in model.parameters())
    pruned = sum(layer.size for layer in layers)
    say(
        f"Emformer of {total / 1e6:.1f} M parameters, {pruned / 1e6:.1f} M of them in {args.block} "
        f"blocks of {len(layers)} layers; torch {torch.__version__}, {args.threads} threads, "
        f"median of {args.rounds} rounds"
    )
    with tqdm(total=5, unit="measurement", disable=None) as progress:
        for measure in (_ranking, _switching, _named, _supernet, _optimizer):
            lines = measure(bank, model, args)
            progress.clear()
            for line in lines:
                say(line)
            progress.update()


def _ranking(bank: MaskBank, model: nn.Module, args: argparse.Namespace) -> list[str]:
    (ranked,) = _milliseconds(args.rounds, lambda _: bank.refresh())
    return [f"to rank all blocks: {ranked:.1f} ms{target(ranked, RANKING, 'ms')}"]


def _switching(bank: MaskBank, model: nn.Module, args: argparse.Namespace) -> list[str]:
    cached = [bank.cached(_drawn(bank, step)) for step in range(2)]

    def switch(number: int) -> None:
        with bank.apply(cached[number % 2]):
            pass

    (switched,) = _milliseconds(args.rounds, switch)
    return [
        "to switch to a cached sub-network and back: "
        f"{switched:.2f} ms{target(switched, SWITCH, 'ms')}"
    ]


def _named(bank: MaskBank, model: nn.Module, args: argparse.Namespace) -> list[str]:
    for number in range(NAMES):
        bank.name(f"mask {number}", _drawn(bank, number))
    state = bank.state_dict()
    for name in bank.names:
        bank.delete(name)
    named, levels = megabytes(state["named"]), megabytes(state["levels"])
    return [
        f"{NAMES} named masks on disk: {named:.1f} MB{target(named, NAMED, 'MB')}; levels, for all "
        f"sparsities: {levels:.1f} MB"
    ]


def _supernet(bank: MaskBank, model: nn.Module, args: argparse.Namespace) -> list[str]:
    def apply(number: int) -> None:
        with bank.apply(_drawn(bank, number)):
            pass

    applied, gate = _milliseconds(
        args.rounds, apply, lambda number: bank.blocks(_drawn(bank, number))
    )
    return [f"masks of a supernet's step: {applied:.1f} ms to apply, {gate:.1f} ms for the gate"]


def _optimizer(bank: MaskBank, model: nn.Module, args: argparse.Namespace) -> list[str]:
    optimizer = make_optimizer(model, Config())
    parameters = bank.parameters()
    gated = GatedOptimizer(
        optimizer,
        {layer.name: (parameters[layer.name], layer) for layer in bank.layers},
        bank.gates(),
    )
    lines = []
    ways: dict[str, tuple[int, Callable[[int], Choice]]] = {
        "the same mask each time": (1, lambda number: args.sparsity),
        "masks of a supernet": (3, lambda number: _drawn(bank, number)),
    }
    for name, (warm_up, choose) in ways.items():
        steps = warm_up + args.rounds
        gates = [bank.blocks(choose(number)) for number in range(steps)]
        for number in range(warm_up):  # state is allocated, and the ages of blocks begin to differ
            gated.step(gates[number])
        plain, own = _milliseconds(
            args.rounds,
            lambda _: optimizer.step(),
            lambda number, gates=gates, first=warm_up: gated.step(gates[first + number]),
        )
        lines.append(
            f"optimiser's step, {name}: gated {own:.1f} ms, plain fused AdamW {plain:.1f} ms, "
            f"ratio {own / plain:.2f}"
        )
    return lines


def _drawn(bank: MaskBank, step: int) -> Sparsities:
    """Draw a sub-network as a supernet's training does, neither the dense nor the sparsest one."""
    names = [layer.name for layer in bank.layers]
    return sub_networks(names, SupernetOptions(dense=0, sparsest=0), SPARSEST, 0, step)[0]


def _milliseconds(rounds: int, *ways: Callable[[int], object]) -> list[float]:
    """Return the median time of each function, in ms. The functions take turns.

    Args:
        rounds: number of rounds.
        ways: the functions; each gets the number of the round.
    """
    times: list[list[float]] = [[] for _ in ways]
    for number in range(rounds):
        for way, seconds in zip(ways, times, strict=True):
            started = time.perf_counter()
            way(number)
            seconds.append(time.perf_counter() - started)
    return [1000 * statistics.median(seconds) for seconds in times]
