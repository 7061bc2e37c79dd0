"""The cells of a comparison of sparse models: its trainings, and the networks of each training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asrprune.base.errors import UserError
from asrprune.compare.measured import data_words, decoding_words, train_steps
from asrprune.compare.study import TRAIN, Cell
from asrprune.compare.weight_pruning.options import (
    DENSE,
    RANDOM_SEARCH,
    SEARCHED,
    SMALL,
    SUPERNET,
    TRAININGS,
    WeightStudyOptions,
)
from asrprune.compare.weight_pruning.trainings import START, Network, trainings_of
from asrprune.config import Config, load_config
from asrprune.weight_pruning.options import parse_block

AVERAGE = "averaged.pt"  # in a training's folder
# method of a network -> file that its search writes
TABLES = {SEARCHED: "pareto.json", RANDOM_SEARCH: "pareto-random.json"}
MODEL, FILES = "network.pt", "onnx"  # in a network's folder: the model, and its ONNX files
# A step that correlates loss and WER. It is separate, so its time does not count for the search.
SAMPLE = "sample"
SAMPLE_TABLE = "sample.json"


@dataclass(frozen=True, kw_only=True)
class NetworksCell(Cell):
    """A training and the networks that are extracted from its model."""

    networks: tuple[Network, ...]


def cells_of(options: WeightStudyOptions, more: Sequence[str] = ()) -> list[NetworksCell]:
    """Return the trainings of a grid and a dense training for each seed, each once, by seed.

    Args:
        options: options of the comparison.
        more: overrides for all trainings. They are applied after the comparison's own.

    Raises:
        UserError: the configuration refuses an override; or a supernet has not what is to be
            extracted from it.
    """
    order = list(dict.fromkeys([*TRAININGS, *options.methods]))
    wanted = {
        (seed, order.index(method))
        for part in options.grid
        for method in (DENSE, *part.methods)
        for seed in part.seeds
    }
    cells = []
    for seed, place in sorted(wanted):
        overrides = [*options.overrides, *more, f"seed={seed}"]
        dense = f"{DENSE}-seed{seed}"
        for name, given, networks in trainings_of(options, order[place], overrides):
            model = str(Path(options.exp_dir, dense, AVERAGE))
            own = [word.replace(START, model) for word in given]
            # this finds a misspelt override before hours of training
            config = load_config(options.config, [*overrides, *own])
            _check_levels(options, config, networks)
            cells.append(
                NetworksCell(
                    name=f"{name}-seed{seed}",
                    method=order[place],
                    seed=seed,
                    overrides=(*overrides, *own),
                    epochs=config.training.epochs,
                    networks=tuple(networks),
                    after=(dense,) if own != given else (),
                )
            )
    return cells


def _check_levels(options: WeightStudyOptions, config: Config, networks: Sequence[Network]) -> None:
    """Check, before hours of training, that a supernet will have the wanted networks.

    Raises:
        UserError: a sparsity is above the supernet's highest sparsity, the population of the search
            is too small, or the supernet's units cannot be searched.
    """
    pruning = config.weight_pruning
    if pruning.method != SUPERNET:
        return
    final = pruning.schedule.final
    if above := [f"{one.sparsity:g}" for one in networks if one.sparsity > final + 1e-6]:
        raise UserError(
            f"sparsities {', '.join(dict.fromkeys(above))}: a supernet is trained to "
            f"weight_pruning.schedule.final={final:g}. Raise this option by overrides, or leave "
            "the sparsities out"
        )
    if any(network.method in TABLES for network in networks):
        if pruning.unit in ("layer", "head"):
            raise UserError(
                f"searched: with weight_pruning.unit={pruning.unit} there is nothing to search. "
                "Leave searched out"
            )
        # imported late: both modules import torch
        from asrprune.search.budgets import choices_of
        from asrprune.weight_pruning.masks.blocks import LEVELS, level_of

        wanted = [level_of(level) / LEVELS for level in options.searched]
        choices = choices_of(parse_block(pruning.block), final, wanted)
        if options.search.population < len(choices):
            raise UserError(
                f"search.population={options.search.population}: must be at least {len(choices)}. "
                "The first population holds the uniform sub-networks of the sparsities "
                f"{', '.join(map(str, choices))}"
            )


def steps_of(options: WeightStudyOptions, cell: NetworksCell, folder: Path) -> dict[str, list[str]]:
    """Return the steps of a cell: train, average and search; then those of each network.

    The steps of a network are extract, decode, score and export, and for some methods the run in
    sherpa-onnx (`runtime`). The export shows the network's size.
    """
    steps = train_steps(options, cell, folder)
    ways = {network.method for network in cell.networks}
    for way, table in TABLES.items():
        if way in ways:
            steps[way] = _search(options, cell, folder, way, table)
    if SEARCHED in ways and options.search.sample_wer:
        words = _search(options, cell, folder, SEARCHED, SAMPLE_TABLE)
        steps[SAMPLE] = [*words, "--sample-wer", str(options.search.sample_wer)]
    for network in cell.networks:
        place = folder / network.name
        what = ["--exp-dir", str(place)]
        decode = ["--model", str(place / MODEL), *data_words(options), *decoding_words(options)]
        steps[f"extract {network.name}"] = extract_words(folder, network)
        steps[f"decode {network.name}"] = ["decode", *what, *decode]
        steps[f"score {network.name}"] = ["score", *what, *decoding_words(options)]
        model = ["--model", str(place / MODEL), "--lang-dir", options.lang_dir]
        steps[f"export {network.name}"] = ["export", *model, "--out-dir", str(place / FILES)]
        if network.method in options.runtime:
            bench = ["bench", "export", "--onnx-dir", str(place / FILES), *data_words(options)]
            bench += ["--test-set", options.test_sets[0], "--ours", "false"]
            steps[f"run {network.name}"] = bench
    return steps


def needs_of(cell: NetworksCell) -> dict[str, str]:
    """Return the step whose output each step takes: step -> needed step."""
    needs = {"average": TRAIN, **dict.fromkeys(TABLES, "average"), SAMPLE: SEARCHED}
    for network in cell.networks:
        source = network.method if network.method in TABLES else "average"
        needs[f"extract {network.name}"] = source
        needs[f"decode {network.name}"] = f"extract {network.name}"
        needs[f"score {network.name}"] = f"decode {network.name}"
        needs[f"export {network.name}"] = f"extract {network.name}"
        needs[f"run {network.name}"] = f"export {network.name}"
    return needs


def extract_words(folder: Path, network: Network) -> list[str]:
    """Return the arguments of the command that extracts a network from its training's model."""
    words = ["extract", "--model", str(folder / AVERAGE)]
    if network.method in TABLES:
        words += ["--search", str(folder / TABLES[network.method])]
    sparsity = 0.0 if network.method == SMALL else network.sparsity  # a small model is whole
    output = folder / network.name / MODEL
    return [*words, "--sparsity", f"{sparsity:g}", "--output", str(output)]


def _search(
    options: WeightStudyOptions, cell: Cell, folder: Path, way: str, table: str
) -> list[str]:
    """Return the arguments of a search. All searches of a cell share one log of evaluations."""
    search = options.search
    words = ["search", "--exp-dir", str(folder), *data_words(options), "--dev-set", search.dev_set]
    if search.max_seconds:
        words += ["--max-seconds", f"{search.max_seconds:g}"]
    words += ["--budgets", *(f"{level:g}" for level in options.searched)]
    words += ["--population", str(search.population), "--generations", str(search.generations)]
    words += ["--rerank", str(search.rerank)]
    words += ["--seed", str(cell.seed), "--output", str(folder / table)]
    return [*words, "--method", "random"] if way == RANDOM_SEARCH else words
