"""Search a supernet for the best sub-network within each budget, by its loss on a development set.

Then decode the few sub-networks of lowest loss (--rerank), and choose the sub-network of lowest
word error rate. Nothing is trained. Each evaluation is saved at once. So the same command continues
a search that was stopped. A search with other budgets, seeds or generations uses the saved
evaluations too.

The layers of a sub-network have only such sparsities as the training of the supernet drew together.
The options weight_pruning.supernet.space and jitter of the training decide which.

If the model was trained without masks, its one-shot prunings are searched. Overrides ``key=value``
then change its options weight_pruning.*.

With --dry-run true and the --config of a planned training, the command searches nothing. It checks
that the training will have sub-networks within the budgets. Overrides then change this
configuration.
"""

import argparse
import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from asrprune.base.arguments import true_or_false
from asrprune.base.devices import choose_device
from asrprune.base.errors import UserError
from asrprune.base.files import write_json, write_text
from asrprune.base.options import check
from asrprune.config import Config, load_config
from asrprune.data.tokenizer import load_tokenizer
from asrprune.export.budget import MILLISECONDS, Amount, Measure
from asrprune.export.source import Source, open_source
from asrprune.search.budgets import (
    Budget,
    budget_of,
    check_budgets,
    choices_of,
    unit_of,
    windows_of,
)
from asrprune.search.dev_set import DevSet, load_dev_set
from asrprune.search.pareto import (
    Rates,
    draw,
    key_of,
    record_of,
    same_size,
    sampled,
    uniform_of,
)
from asrprune.search.rerank import candidates_of, markdown, reranked
from asrprune.search.times import add_times, times_of
from asrprune.transducer.model import Transducer
from asrprune.weight_pruning.masks.groups import HEAD, LAYER
from asrprune.weight_pruning.search.evaluations import EvaluationLog
from asrprune.weight_pruning.search.options import SearchOptions
from asrprune.weight_pruning.search.searching import Evaluated, SearchResult, search_sparsities

log = logging.getLogger(__name__)

_DEFAULT = SearchOptions()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune search`` to a parser."""
    parser.add_argument("--exp-dir", type=Path, required=True, help="results go here")
    parser.add_argument("--model", type=Path, help="default: EXP_DIR/averaged.pt (stage 6)")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="validated cuts (stage 3)")
    parser.add_argument("--lang-dir", type=Path, required=True, help="the tokenizer (stage 4)")
    parser.add_argument(
        "--dev-set", required=True, help="the development set on which the loss is measured"
    )
    parser.add_argument(
        "--max-seconds",
        type=float,
        help="measure the loss on a fixed part of the set, with at most so many seconds of "
        "speech; default: the whole set",
    )
    parser.add_argument(
        "--budgets",
        nargs="+",
        required=True,
        help="sizes of the int8 files that stage 10 writes, such as 5MB (not for unit=block); or "
        "multiply-adds of the encoder's weights for a second of speech, such as 120MMAC; or "
        "milliseconds of the int8 encoder for a chunk, or for a second of speech without "
        "streaming, on one thread of this machine, such as 1.2ms (not for unit=block); or "
        "sparsities, such as 0.7: the cost of the uniform sub-network of this sparsity",
    )
    parser.add_argument("--method", choices=("evolution", "random"), default=_DEFAULT.method)
    parser.add_argument(
        "--population",
        type=int,
        help="number of sub-networks in a generation, for each budget; default: "
        f"{_DEFAULT.population}, or the number of sparsities that a layer may have, if larger",
    )
    parser.add_argument(
        "--generations",
        type=int,
        default=_DEFAULT.generations,
        help="number of generations after the first population",
    )
    parser.add_argument(
        "--seed", type=int, default=_DEFAULT.seed, help="seed of the random draws of the search"
    )
    parser.add_argument(
        "--rerank",
        type=int,
        default=5,
        help="decode this many sub-networks of lowest loss for each budget, and choose the one of "
        "lowest word error rate; 0: choose by loss alone",
    )
    parser.add_argument(
        "--sample-wer",
        type=int,
        default=0,
        help="also decode this many sub-networks of each budget's size, and correlate their loss "
        "with their word error rate; 0: none",
    )
    parser.add_argument(
        "--wer",
        type=true_or_false,
        default=False,
        help="also decode the best and the uniform sub-networks, for the table and the plot",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file of the result; default: EXP_DIR/pareto.json. The table has the same name with "
        ".md, and the plot with .png",
    )
    parser.add_argument(
        "--log",
        type=Path,
        help="file of the evaluations; default: a file in EXP_DIR/search for each model, "
        "development set and type of device",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--dry-run",
        type=true_or_false,
        default=False,
        help="check the budgets for a training with --config, and search nothing",
    )
    parser.add_argument(
        "--config", type=Path, help="configuration of the training; only with --dry-run true"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="weight_pruning options")


def main(args: argparse.Namespace) -> None:
    """Search, then write the table and the plot."""
    texts = [word for word in args.budgets if "=" not in word]
    overrides = [word for word in args.budgets if "=" in word] + args.overrides
    if args.sample_wer and args.sample_wer < 3:
        raise UserError(
            f"--sample-wer {args.sample_wer}: at least 3 sub-networks are needed for a "
            "correlation. Give 3 or more, or 0 for none"
        )
    if args.rerank < 0:
        raise UserError(f"--rerank {args.rerank}: must be at least 0")
    if args.max_seconds is not None and not args.max_seconds > 0:
        raise UserError(f"--max-seconds {args.max_seconds:g}: must be above 0")
    if args.dry_run != bool(args.config):
        raise UserError("--dry-run true checks the budgets of a --config: give both, or none")
    if args.dry_run:
        _check(args, texts, overrides)
        return
    path = args.model or args.exp_dir / "averaged.pt"
    tokenizer = load_tokenizer(args.lang_dir)
    source = open_source(path, overrides, choose_device(args.device), tokenizer)
    config, bank = source.config, source.bank
    _refuse_other_ways(path, config)
    if not source.trained:
        log.warning("%s was trained without masks: one-shot prunings of it are searched", path)
    unit = unit_of(texts, bank)
    times = times_of(source, args.exp_dir, args.log) if unit == MILLISECONDS else None
    measure = Measure(source.model, bank, unit, times)
    budgets = [budget_of(text, measure, source.sparsest) for text in texts]
    choices = choices_of(bank.block, source.sparsest, (b.sparsity for b in budgets))
    windows = windows_of(config.weight_pruning, source.sparsest, choices)
    options = _options(args, choices, windows)
    for text, budget in zip(texts, budgets, strict=True):
        if budget.sparsity == options.choices[-1]:
            log.warning(
                "--budgets %s: all layers must be at sparsity %g, the highest sparsity: the search "
                "has no choice",
                text,
                budget.sparsity,
            )
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    dev = load_dev_set(
        args.manifest_dir, args.dev_set, args.max_seconds, source.model, config, tokenizer
    )
    identity = {
        "model": source.digest,
        "dev set": f"{dev.name} {dev.digest}",
        "device": source.device.type,  # types of devices round differently
    }
    # by default, each model, set and type of device has its own log
    name = f"{dev.name}-{dev.digest[:8]}-{source.digest[:8]}-{source.device.type}.jsonl"
    log_path = args.log or args.exp_dir / "search" / name
    result = _search(source, options, measure, budgets, dev, log_path, identity)
    samples = [same_size(result.evaluated, found.budget, args.sample_wer) for found in result.found]
    candidates = candidates_of(result, args.rerank)
    shown = [*chain(*candidates), *uniform_of(result)] if args.wer else []
    shown += chain(*candidates) if args.rerank else []
    rates, decoding = _error_rates(source, dev, shown, log_path, identity)
    more, _ = _error_rates(source, dev, [*chain(*samples)], log_path, identity)
    rates |= more
    if args.rerank:
        candidates = reranked(result, candidates, rates)
    record = {
        "model": str(path),
        "model_digest": source.digest,
        "one_shot": not source.trained,
        "block": bank.unit,
        "dev_set": dev.name,
        "dev_digest": dev.digest,
        "dev_cuts": len(dev.references),
        "dev_seconds": round(dev.seconds, 3),
        "options": dataclasses.asdict(options),
        "rerank": args.rerank,
        "decoding_seconds": round(decoding, 3),
        **record_of(result, texts, source.model, bank, measure, candidates, rates if shown else {}),
    }
    if times:
        add_times(record, times, source)
    if args.sample_wer:
        record["wer"] = sampled(samples, texts, rates, measure.unit)
    output = args.output or args.exp_dir / "pareto.json"
    write_json(output, record)
    write_text(output.with_suffix(".md"), markdown(record))
    draw(record, output.with_suffix(".png"))
    _tell(record, output)


def _refuse_other_ways(path: Path, config: Config) -> None:
    """Check that a model has sub-networks of several sizes, or was trained without masks."""
    ways = {
        "gradual": "trains to one sparsity, so there are no other sub-networks to choose from",
        "pathways": "trains a mask for each language, not sub-networks of several sizes",
    }
    if (unit := config.weight_pruning.unit) in (LAYER, HEAD):
        raise UserError(
            f"{path}: with weight_pruning.unit={unit} all sub-networks of a size keep the same "
            f"{unit}s, so there is nothing to search. Ask for a size: asrprune extract --budget, "
            "or asrprune export --networks"
        )
    if why := ways.get(config.weight_pruning.method):
        raise UserError(
            f"{path}: weight_pruning.method={config.weight_pruning.method} {why}. Search a "
            "supernet, or a model trained without masks"
        )


def _check(args: argparse.Namespace, texts: Sequence[str], words: Sequence[str]) -> None:
    """Check a configuration before its training: raise what a search of its model would raise."""
    config = load_config(args.config, words)
    _refuse_other_ways(args.config, config)
    known = (args.lang_dir / "tokens.txt").is_file()
    check_budgets(texts, config, load_tokenizer(args.lang_dir).vocab_size if known else None)
    log.info("%s: the model will have sub-networks within %s", args.config, ", ".join(texts))


def _options(
    args: argparse.Namespace, choices: list[float], windows: list[list[float]]
) -> SearchOptions:
    """Return the options of the search."""
    population = args.population
    if population is None:
        population = max(_DEFAULT.population, len(choices))
        if population > _DEFAULT.population:
            log.info(
                "--population %d: as many as there are uniform sub-networks. The first population "
                "holds all of them",
                population,
            )
    options = SearchOptions(
        method=args.method,
        choices=choices,
        windows=windows,
        population=population,
        generations=args.generations,
        seed=args.seed,
    )
    if options.population < len(choices):
        raise UserError(
            f"--population {options.population}: must be at least {len(choices)}. The first "
            "population holds the uniform sub-networks of the sparsities "
            f"{', '.join(f'{choice:g}' for choice in choices)}"
        )
    check(options, "--")
    return options


def _search(
    source: Source,
    options: SearchOptions,
    measure: Measure,
    budgets: Sequence[Budget],
    dev: DevSet,
    log_path: Path,
    identity: dict[str, str],
) -> SearchResult:
    """Run the search, with a progress bar."""
    costs = [budget.cost for budget in budgets]
    most = options.evaluations(len(set(costs)))
    log.info("at most %d evaluations on %.0f s of speech", most, dev.seconds)
    with tqdm(total=most, desc="search", unit="net", disable=None) as bar:
        return search_sparsities(
            [group.name for group in source.bank.groups],
            options,
            measure.cost(options.choices),
            costs,
            _measured(source, dev.loss),
            log_path=log_path,
            identity=identity,
            progress=lambda *_: bar.update(),
        )


def _measured(
    source: Source, measure: Callable[[Transducer], float]
) -> Callable[[dict[str, float]], float]:
    """Return a function that applies ``measure`` to the sub-network of given sparsities."""

    def measured(choice: dict[str, float]) -> float:
        with source.bank.sub_network(choice):
            return measure(source.model)

    return measured


def _error_rates(
    source: Source,
    dev: DevSet,
    networks: Sequence[Evaluated],
    log_path: Path,
    identity: dict[str, str],
) -> tuple[Rates, float]:
    """Return the word error rates of sub-networks, and the seconds of their decoding.

    Each rate is saved at once, as losses are.
    """
    if not networks:
        return {}, 0.0
    layers = [group.name for group in source.bank.groups]
    rates, took = {}, 0.0
    with EvaluationLog(
        log_path.with_suffix(".wer.jsonl"),
        layers,
        _measured(source, dev.error_rate),
        {"measure": "WER", **identity},
    ) as known:
        wanted = {key_of(one): one for one in networks}
        for key, one in tqdm(wanted.items(), desc="decoding", unit="net", disable=None):
            rates[key], seconds = known.evaluate([one.choice[name] for name in layers])
            took += seconds
    return rates, took


def _tell(record: dict[str, Any], output: Path) -> None:
    """Log the best sub-network of each budget."""
    for one in record["budgets"]:
        best, uniform = one["best"], one["uniform"] and one["uniform"]["fitness"]
        rate = "" if best.get("wer") is None else f", WER {100 * best['wer']:.2f} %"
        log.info(
            "%s: loss %.4f%s at %s; best uniform sub-network %.4f",
            one["budget"],
            best["fitness"],
            rate,
            Amount(best[record["unit"]], record["unit"]),
            math.nan if uniform is None else uniform,
        )
    if "wer" in record:
        told = record["wer"]["rank_correlation"]
        log.info("rank correlation of loss and WER: %s", "none" if told is None else f"{told:.3f}")
    log.info("%d evaluations; wrote %s", record["evaluations"], output)
