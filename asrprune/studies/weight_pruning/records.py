"""What a training leaves for a comparison of sparse models: a record a network and test set.

Beside its errors it has the network's size, what its training took (the same in all records of one
training), and where a search chose it, what that took.
"""

import shlex
from pathlib import Path
from typing import Any

from asrprune.config import Config
from asrprune.files import read_json
from asrprune.studies.measured import (
    errors_of_set,
    how_it_is_made,
    what_it_took,
    what_the_training_did,
)
from asrprune.studies.study import TRAIN, Record
from asrprune.studies.weight_pruning.grid import (
    MODEL,
    SAMPLE_TABLE,
    TABLES,
    Network,
    NetworksCell,
    extract_words,
)
from asrprune.studies.weight_pruning.options import SEARCHED, WeightStudyOptions


def make_records(
    options: WeightStudyOptions,
    cell: NetworksCell,
    config: Config,
    folder: Path,
    progress: dict[str, dict[str, Any]],
) -> list[Record]:
    """The records of a cell: of each test set, those of its networks in order.

    Args:
        progress: by step, what it took (`asrprune.studies.cell`).

    Raises:
        UserError: a file of the cell is missing or damaged.
    """
    training = {
        "training": cell.name,
        **how_it_is_made(options, cell, folder),
        **what_the_training_did(folder, config),
        **what_it_took(progress[TRAIN]),
        "synthetic": options.synthetic,
    }
    return [
        {
            "set": name,
            "method": network.method,
            "sparsity": network.sparsity,
            "seed": cell.seed,
            **errors_of_set(options, config, folder / network.name, name),
            **size_of(folder / network.name),
            "extract": shlex.join(["asrprune", *extract_words(folder, network)]),
            "search": search_of(options, folder, network),
            **training,
        }
        for name in options.test_sets
        for network in cell.networks
    ]


def size_of(folder: Path) -> Record:
    """What ``asrprune extract`` says of the network in a folder; bytes are of the packed file."""
    about = read_json(folder / Path(MODEL).with_suffix(".json"))
    names = ("density", "parameters", "dense_parameters", "bytes", "int8_bytes")
    return {name: about[name] for name in names}


def search_of(
    options: WeightStudyOptions,
    folder: Path,
    network: Network,
) -> Record | None:
    """What the search for a network took, for all sizes together; None of a uniform one.

    ``loss`` is the network's on the development set, ``uniform_loss`` that of the best uniform one
    of its size at most. ``evaluation_seconds`` are of all the search's evaluations, also of those
    that were done before, by another search or by this one before it was stopped.
    Where a sample was asked for, ``rank_correlation`` is that of loss and WER among networks of the
    network's size, ``band`` below it at most; None where there is none.
    """
    wanted = wanted_search(options, network.method)
    if wanted is None:
        return None
    found = read_json(folder / TABLES[network.method])
    place = list(options.searched).index(network.sparsity)
    here = found["budgets"][place]
    sampled = {}
    if wanted.get("sample_of_each"):
        sample = read_json(folder / SAMPLE_TABLE)["wer"]
        correlation = sample["budgets"][place]["rank_correlation"]
        sampled = {"band": sample["band"], "rank_correlation": correlation}
    return {
        **wanted,
        "loss": here["best"]["fitness"],
        "uniform_loss": here["uniform"] and here["uniform"]["fitness"],
        "evaluations": found["evaluations"],
        "evaluation_seconds": found["seconds"],
        **sampled,
    }


def wanted_search(options: WeightStudyOptions, method: str) -> Record | None:
    """The options of the search for a method's networks, as records hold them; None without one."""
    search = options.search
    if method not in TABLES:
        return None
    wanted = {
        "sparsities": list(options.searched),
        "dev_set": search.dev_set,
        "max_seconds": search.max_seconds,
        "population": search.population,
        "generations": search.generations,
    }
    return wanted | ({"sample_of_each": search.sample_wer} if method == SEARCHED else {})
