"""Measure the cost of switching between pathways when a decoder decodes several languages in turn.

An Emformer transducer as large as published models has a mask for each language. The transducer
decodes the same generated batches by greedy search in two orders: languages in turn (a b c d a b c
d), and one language after the other (aaaa bbbb). The two orders take turns in one process. A ratio
is the median of the ratios of the rounds. The hypotheses must be equal to those of each pathway
alone. Utterances are decoded whole. Decoding chunk by chunk would take longer, but the switches
would take the same time. On a busy machine, the ratio of CPU time is more exact than the ratio of
wall-clock time. The target is for the ratio of CPU time.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm

from asrprune.base.errors import UserError
from asrprune.decoding.hypothesis import Hypothesis
from asrprune.decoding.options import DecodingOptions
from asrprune.decoding.pathways import MOST_CACHED, Pathways
from asrprune.decoding.search import recognize
from asrprune.training.measuring import (
    NAMED,
    NAMES,
    add_common_arguments,
    count,
    megabytes,
    say,
    target,
)
from asrprune.transducer.model import Transducer, build_model
from asrprune.transducer.options import LossOptions, ModelOptions
from asrprune.weight_pruning.masks.bank import MaskBank
from asrprune.weight_pruning.masks.prunable import find_layers
from asrprune.weight_pruning.options import WeightPruningOptions

MOST_COST = 1.05  # target: highest ratio of the time in turn to the time by language
VOCABULARY = 500
FRAMES_PER_SECOND = 100
# with these values, a model of random weights emits about as many symbols per second as speech has
NOISE, SHARPNESS = 0.05, 3.0

Turn = tuple[str, int]  # a language, and the number of the batch to decode


@dataclass
class Order:
    """Hold an order of turns, and the time of each of its rounds."""

    turns: list[Turn]
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # CPU time of all threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune bench pathways`` to a parser."""
    add_common_arguments(parser, "sparsity of each language's mask")
    parser.add_argument("--languages", type=count, default=4, help="languages that take turns")
    parser.add_argument("--batches", type=count, default=2, help="batches of each language")
    parser.add_argument(
        "--utterances",
        type=count,
        default=4,
        help="utterances in a batch; batches of one utterance, the hard case, follow",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each utterance")


def main(args: argparse.Namespace) -> None:
    """Print a line for each measurement, with its target if there is one.

    Raises:
        UserError: with these options nothing is measured; or switching changes hypotheses.
    """
    if not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds}: give more than 0")
    for option in ("languages", "batches"):
        if (value := getattr(args, option)) < 2:
            raise UserError(f"--{option} {value}: give at least 2, or both orders are the same")
    torch.set_num_threads(args.threads)
    model, bank = _model(args)
    generator = torch.Generator().manual_seed(1)
    for number in range(NAMES):
        _draw(bank, f"language {number}", args.sparsity, generator)
    stored = megabytes(bank.state_dict()["named"])
    say(f"masks of {NAMES} languages on disk: {stored:.1f} MB{target(stored, NAMED, 'MB')}")
    for name in bank.names:
        bank.delete(name)
    for number in range(args.languages):
        _draw(bank, f"language {number}", args.sparsity, generator)
    pathways = Pathways(bank, model, {})
    switch = _switching(pathways, args.rounds)
    for utterances in dict.fromkeys((args.utterances, 1)):
        say(_orders(model, pathways, utterances, switch, args))


def _model(args: argparse.Namespace) -> tuple[Transducer, MaskBank]:
    """Return a model whose hypotheses depend on every layer, and an empty bank of masks for it."""
    torch.manual_seed(0)
    options = ModelOptions(
        encoder="asrprune.transducer.emformer:emformer",
        encoder_options={"num_layers": args.layers, "dim": args.dim, "ffn_dim": args.ffn_dim},
    )
    model = build_model(options, LossOptions(), VOCABULARY).eval().requires_grad_(False)
    for parameter in model.parameters():  # some layers begin with zeros and would have no effect
        parameter += NOISE * torch.randn_like(parameter)
    model.joiner.output.weight.mul_(SHARPNESS)
    layers = find_layers(model, args.block, WeightPruningOptions().include)
    bank = MaskBank(model, layers)
    total = sum(parameter.numel() for parameter in model.parameters())
    encoder = sum(parameter.numel() for parameter in model.encoder.parameters())
    pruned = sum(layer.size for layer in layers)
    say(
        f"Emformer of {encoder / 1e6:.1f} M parameters in a transducer of {total / 1e6:.1f} M, "
        f"{pruned / 1e6:.1f} M of them in {args.block} blocks of {len(layers)} layers, masks of "
        f"sparsity {args.sparsity:g}; torch {torch.__version__}, {args.threads} threads, "
        f"median of {args.rounds} rounds"
    )
    return model, bank


def _draw(bank: MaskBank, name: str, sparsity: float, generator: torch.Generator) -> None:
    """Name a mask of random blocks.

    No two masks have the same blocks, so the result would change if blocks of a former language
    stayed.
    """
    bank.name(
        name,
        {
            layer: torch.rand(kept.shape, generator=generator) >= sparsity
            for layer, kept in bank.blocks(sparsity).items()
        },
    )


def _switching(pathways: Pathways, rounds: int) -> float:
    """Print the time of a switch. Return the CPU time to switch to a cached language and back."""
    names = pathways.names[:MOST_CACHED]
    first = statistics.median(_times(pathways, name)[0] for name in names)
    again = [_times(pathways, name) for _ in range(rounds) for name in names]
    wall, cpu = (statistics.median(seconds) for seconds in zip(*again, strict=True))
    held = sum(4 * layer.size for layer in pathways.bank.layers) / 1e6
    say(
        f"to a language and back: {1000 * first:.1f} ms the first time, {1000 * wall:.2f} ms "
        f"when it is cached ({1000 * cpu:.2f} ms of CPU time), as the last {MOST_CACHED} are in "
        f"{held:.0f} MB each"
    )
    return cpu


def _times(pathways: Pathways, language: str) -> tuple[float, float]:
    """Return the seconds and the CPU seconds of a switch to a language and back."""
    wall, cpu = time.perf_counter(), time.process_time()
    with pathways.applied(language):
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def _orders(
    model: Transducer,
    pathways: Pathways,
    utterances: int,
    switch: float,
    args: argparse.Namespace,
) -> str:
    """Decode batches of so many utterances in both orders. Return a line about the times.

    Args:
        model: the model.
        pathways: its pathways.
        utterances: number of utterances in a batch.
        switch: CPU time of a switch, in seconds.
        args: the options of the command.
    """
    frames = max(1, round(args.seconds * FRAMES_PER_SECOND))
    generator = torch.Generator().manual_seed(2)
    shape = (utterances, frames, model.feature_mean.numel())
    batches = [torch.randn(shape, generator=generator) for _ in range(args.batches)]
    numbers = range(args.batches)
    in_turns = Order([(name, number) for number in numbers for name in pathways.names])
    sorted_ = Order([(name, number) for name in pathways.names for number in numbers])
    # each language's weights are masked anew for these hypotheses; this pass is also the warm-up
    expected = dict(_decoded(model, pathways.bank.apply, sorted_.turns, batches))
    for number in tqdm(range(args.rounds), "rounds", unit="round", disable=None, leave=False):
        for order in (in_turns, sorted_) if number % 2 else (sorted_, in_turns):
            wall, cpu = time.perf_counter(), time.process_time()
            found = dict(_decoded(model, pathways.applied, order.turns, batches))
            order.seconds.append(time.perf_counter() - wall)
            order.cpu_seconds.append(time.process_time() - cpu)
            if found != expected:
                raise UserError(
                    "switching between languages changes their hypotheses: a pathway is not what "
                    "it is by itself. Decode each language with what `asrprune extract --language` "
                    "takes out, and report this"
                )
    ratios = _ratios(in_turns.seconds, sorted_.seconds)
    ratio, seconds = statistics.median(ratios), statistics.median(sorted_.seconds)
    cpu_ratio = statistics.median(_ratios(in_turns.cpu_seconds, sorted_.cpu_seconds))
    cpu = statistics.median(sorted_.cpu_seconds)
    switches = len(in_turns.turns)  # one for each batch
    spoken = switches * utterances * args.seconds
    symbols = sum(len(hypothesis.tokens) for some in expected.values() for hypothesis in some)
    return (
        f"{switches} batches of {utterances} x {args.seconds:g} s: {seconds:.2f} s by language; in "
        f"turns the ratio is {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), of CPU time "
        f"{cpu_ratio:.3f}{target(cpu_ratio, MOST_COST, 'times')}; a switch is "
        f"{switch * switches / cpu:.2%} of a batch's time; equal hypotheses, "
        f"{symbols / spoken:.1f} symbols a second"
    )


def _decoded(
    model: Transducer,
    applied: Callable[[str], AbstractContextManager[None]],
    turns: list[Turn],
    batches: list[Tensor],
) -> Iterator[tuple[Turn, list[Hypothesis]]]:
    """Decode batches in an order, and switch where the language changes, as decoding does."""
    options = DecodingOptions()
    for language, group in groupby(turns, key=lambda turn: turn[0]):
        with applied(language):
            for turn in group:
                x = batches[turn[1]]
                x_lens = torch.full((x.shape[0],), x.shape[1])
                yield turn, recognize(model, x, x_lens, options)


def _ratios(times: list[float], others: list[float]) -> list[float]:
    return [a / b for a, b in zip(times, others, strict=True)]
