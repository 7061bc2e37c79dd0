"""The records of a finished cell: one for each network and test set.

A record has the errors of the network, its size, and the cost of its training. The cost is the same
in all records of one training. If a search chose the network, the record also has the cost of the
search.
"""

import shlex
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.files import read_json
from asrprune.compare.measured import (
    errors_of_set,
    errors_of_texts,
    how_it_is_made,
    what_it_took,
    what_the_training_did,
)
from asrprune.compare.study import TRAIN, Record
from asrprune.compare.weight_pruning.grid import (
    FILES,
    MODEL,
    SAMPLE_TABLE,
    TABLES,
    Network,
    NetworksCell,
    extract_words,
)
from asrprune.compare.weight_pruning.options import SEARCHED, WeightStudyOptions
from asrprune.config import Config
from asrprune.export.in_turn import KINDS, texts_path
from asrprune.export.onnx_files import SUMMARY, sum_bytes


def make_records(
    options: WeightStudyOptions,
    cell: NetworksCell,
    config: Config,
    folder: Path,
    progress: dict[str, dict[str, Any]],
) -> list[Record]:
    """Return the records of a cell, by test set and then by network.

    Args:
        options: options of the comparison.
        cell: the cell.
        config: the configuration of the training.
        folder: the folder of the cell.
        progress: for each step, the time and attempts it took (`asrprune.compare.cell`).

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
            "runtime": runtime_of(options, config, folder / network.name, network.method, name),
            "extract": shlex.join(["asrprune", *extract_words(folder, network)]),
            "search": search_of(options, folder, network),
            **training,
        }
        for name in options.test_sets
        for network in cell.networks
    ]


def size_of(folder: Path) -> Record:
    """Return the sizes of a network.

    Returns:
        ``density`` is the kept share of the pruned weights, ``parameters`` the number of all kept
        weights, ``dense_parameters`` that of the dense network. ``bytes`` is the size of the int8
        files that a runtime loads, ``float32_bytes`` that of the float32 files. Masked blocks make
        no file smaller.
    """
    about = read_json(folder / Path(MODEL).with_suffix(".json"))
    [exported] = read_json(folder / FILES / SUMMARY)["networks"].values()
    return {
        **{name: about[name] for name in ("density", "parameters", "dense_parameters")},
        "bytes": sum_bytes(exported["files"], True)["bytes"],
        "float32_bytes": sum_bytes(exported["files"], False)["bytes"],
    }


def runtime_of(
    options: WeightStudyOptions, config: Config, folder: Path, method: str, test_set: str
) -> dict[str, Record] | None:
    """Return what a network does in sherpa-onnx, in float32 and in int8.

    Args:
        options: options of the comparison.
        config: the configuration of the training.
        folder: the folder of the network.
        method: the network's method.
        test_set: name of the test set.

    Returns:
        ``float32`` and ``int8``, each with the errors of the test set (`errors_of_texts`), and with
        ``milliseconds`` of CPU time ``per`` chunk or second of speech. None if the network is not
        run on the test set.

    Raises:
        UserError: a file is missing or damaged, or is of a part of the test set.
    """
    if not runs_in_sherpa(options, method, test_set):
        return None
    found, words = {}, errors_of_set(options, config, folder, test_set)["words"]
    for row in read_json(folder / FILES / f"{test_set}.json"):
        if row["runs"] not in KINDS:
            continue  # our own decoder, if somebody called `asrprune bench export` too
        path = texts_path(folder / FILES, test_set, row["network"], row["runs"])
        errors = errors_of_texts(options, config, path, test_set)
        if errors["words"] != words:
            raise UserError(
                f"{path} has {errors['words']} reference words, and the set {test_set} has "
                f"{words}: a part of the set was run there by hand. Remove {folder.parent} to run "
                "the cell again, or run `asrprune bench export` there on the whole set"
            )
        found[row["runs"]] = {**errors, "milliseconds": row["milliseconds"], "per": row["per"]}
    return found


def runs_in_sherpa(options: WeightStudyOptions, method: str, test_set: str) -> bool:
    """Return whether the networks of a method are run on a test set in sherpa-onnx."""
    return method in options.runtime and test_set == options.test_sets[0]


def search_of(
    options: WeightStudyOptions,
    folder: Path,
    network: Network,
) -> Record | None:
    """Return the options, the cost and the result of a network's search.

    Returns:
        None if no search chose the network. ``evaluations`` and ``evaluation_seconds`` are those of
        the search for all sizes together. They include evaluations of another search, and of this
        search before it was stopped. ``loss``: the loss of the network on the development set.
        ``uniform_loss``: the loss of the best uniform network that is not larger. With a sample,
        ``rank_correlation``: the rank correlation of loss and WER among networks that are smaller
        than the budget by at most the share ``band``; None if there is no correlation.
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
        "evaluation_seconds": found["seconds"] + found["decoding_seconds"],
        **sampled,
    }


def wanted_search(options: WeightStudyOptions, method: str) -> Record | None:
    """Return the options of a method's search as records hold them; None without a search."""
    search = options.search
    if method not in TABLES:
        return None
    wanted = {
        "sparsities": list(options.searched),
        "dev_set": search.dev_set,
        "max_seconds": search.max_seconds,
        "population": search.population,
        "generations": search.generations,
        "rerank": search.rerank,
    }
    return wanted | ({"sample_of_each": search.sample_wer} if method == SEARCHED else {})
