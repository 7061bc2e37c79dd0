"""The records of a finished cell: one for each language that the model is tested on."""

from itertools import combinations
from pathlib import Path
from typing import Any

from asrprune.compare.measured import (
    errors_of_set,
    how_it_is_made,
    what_it_took,
    what_the_training_did,
)
from asrprune.compare.pathways.grid import MODEL, LanguagesCell, set_of
from asrprune.compare.pathways.options import PathwaysStudyOptions
from asrprune.compare.study import TRAIN, Record
from asrprune.config import Config


def make_records(
    options: PathwaysStudyOptions,
    cell: LanguagesCell,
    config: Config,
    folder: Path,
    progress: dict[str, dict[str, Any]],
) -> list[Record]:
    """Return the records of a cell, in the order of its languages.

    Args:
        options: options of the comparison.
        cell: the cell.
        config: the configuration of the training.
        folder: the folder of the cell.
        progress: for each step, the time and attempts it took (`asrprune.compare.cell`).

    Raises:
        UserError: a file of the cell is missing or damaged.
    """
    networks, model = masks_of(folder / MODEL, cell.languages)
    about = {
        "training": cell.name,
        **how_it_is_made(options, cell, folder),
        "lineage": dict(cell.lineage),
        **what_the_training_did(folder, config),
        "corpus_hours": _corpus_hours(options, config),
        **what_it_took(progress[TRAIN]),
        **model,
        "synthetic": options.synthetic,
    }
    return [
        {
            "set": set_of(options, language),
            "language": language,
            "method": cell.method,
            "seed": cell.seed,
            **errors_of_set(options, config, folder, set_of(options, language)),
            **networks[language],
            **about,
        }
        for language in cell.languages
    ]


def masks_of(path: Path, languages: tuple[str, ...]) -> tuple[dict[str, Record], Record]:
    """Return how much of a model each language uses, and how much all languages use together.

    Returns:
        For each language, ``density`` and ``parameters``, those that are kept or never pruned.
        Then, for the model and all languages that it has masks of, ``union_density`` and
        ``union_parameters`` with the own weights of languages; and the ``overlaps`` of pairs of the
        given languages (Jaccard).
    """
    from asrprune.export.source import open_source
    from asrprune.training.own_weights import count_own_weights, own_weights_of

    source = open_source(path, [])
    bank = source.bank
    choices = {one: one if bank.names else source.sparsest for one in languages}
    if not source.trained:
        choices = dict.fromkeys(languages, 0.0)
    union = bank.union(*(bank.names or choices.values()))
    networks = {}
    for language, choice in choices.items():
        own = source.of(language).bank  # a language with own weights may have fewer symbols
        networks[language] = {
            "density": own.density(choice),
            "parameters": own.kept_parameters(choice),
        }
    more = count_own_weights(own_weights_of(source.content))
    return networks, {
        "union_density": bank.density(union),
        "union_parameters": bank.kept_parameters(union) + more,
        "overlaps": {
            f"{one}-{other}": round(bank.overlap(choices[one], choices[other]), 4)
            for one, other in combinations(languages, 2)
        },
    }


def _corpus_hours(options: PathwaysStudyOptions, config: Config) -> float:
    """Return the hours of the training set, with all languages."""
    from asrprune.training.train import read_statistics

    statistics = read_statistics(Path(options.manifest_dir), config.data.corpus)
    return round(statistics["train"]["seconds"] / 3600, 4)
