"""The cells of a comparison of models of several languages: trainings and their sources."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asrprune.compare.measured import data_words, decoding_words, train_steps
from asrprune.compare.pathways.options import PathwaysStudyOptions
from asrprune.compare.study import TRAIN, Cell
from asrprune.config import load_config

MODEL = "averaged.pt"


@dataclass(frozen=True, kw_only=True)
class LanguagesCell(Cell):
    """A training of some languages.

    Attributes:
        languages: the languages that the model is tested on.
        pruned: the sparsities to which the cell's model is pruned, for the masks of other cells.
        lineage: the name of each cell from which weights or masks come, directly or through other
            cells, with a digest of that cell's overrides.
    """

    languages: tuple[str, ...]
    pruned: tuple[float, ...]
    lineage: tuple[tuple[str, str], ...]


def cells_of(options: PathwaysStudyOptions, more: Sequence[str] = ()) -> list[LanguagesCell]:
    """Return the trainings of a grid and all their sources, each once, sorted by seed.

    Args:
        options: options of the comparison.
        more: overrides for all trainings. They are applied after the comparison's own.

    Raises:
        UserError: the configuration refuses an override.
    """
    places = list(options.trainings)
    wanted = {
        (seed, places.index(name))
        for part in options.grid
        for method in part.methods
        for name in [method, *sources_of(options, method)]
        for seed in part.seeds
    }
    cells: dict[str, LanguagesCell] = {}
    epochs: dict[str, int] = {}
    for seed, place in sorted(wanted):
        method = places[place]
        pruned = sorted(
            {
                options.trainings[places[other]].sparsity
                for its_seed, other in wanted
                if its_seed == seed
                and options.trainings[places[other]].masks == method
                and not _keeps_masks(options, places[other])
            }
        )
        for languages in _parts(options, method):
            own = _overrides(options, method, languages, seed)
            overrides = [*options.overrides, *more, *own]
            # this finds a misspelt override before hours of training; one seed is enough
            if method not in epochs:
                epochs[method] = load_config(options.config, overrides).training.epochs
            name, after = _name(options, method, languages, seed), []
            for source in _after(options, method, languages, seed):
                after.append(cells[source])
            cells[name] = LanguagesCell(
                name=name,
                method=method,
                seed=seed,
                overrides=tuple(overrides),
                epochs=epochs[method],
                after=tuple(source.name for source in after),
                languages=tuple(options.trainings[method].tested) or languages,
                pruned=tuple(pruned),
                lineage=_lineage(after),
            )
    return list(cells.values())


def sources_of(options: PathwaysStudyOptions, method: str) -> list[str]:
    """Return the trainings from which a training's weights and masks come, and their sources."""
    found: list[str] = []
    left = [method]
    while left:
        training = options.trainings[left.pop()]
        for name in (training.start, training.masks):
            if name and name not in found:
                found.append(name)
                left.append(name)
    return found


def set_of(options: PathwaysStudyOptions, language: str) -> str:
    """Return the name of a language's test set."""
    return options.test_sets[options.languages.index(language)]


def steps_of(
    options: PathwaysStudyOptions, cell: LanguagesCell, folder: Path
) -> dict[str, list[str]]:
    """Return the steps train, average, decode and score; then masks for others."""
    where, sets = ["--exp-dir", str(folder)], [set_of(options, one) for one in cell.languages]
    what = decoding_words(options, sets)
    steps = {
        **train_steps(options, cell, folder),
        "decode": ["decode", *where, *data_words(options), *what],
        "score": ["score", *where, *what],
    }
    for sparsity in cell.pruned:
        output = ["--output", str(folder / _pruned(sparsity))]
        model = ["--model", str(folder / MODEL)]
        steps[f"masks {sparsity:g}"] = ["masks", *model, "--sparsity", f"{sparsity:g}", *output]
    return steps


def needs_of(cell: LanguagesCell) -> dict[str, str]:
    """Return the step whose output each step takes: step -> needed step."""
    pruned = {f"masks {sparsity:g}": "average" for sparsity in cell.pruned}
    return {"average": TRAIN, "decode": "average", "score": "decode", **pruned}


def _parts(options: PathwaysStudyOptions, method: str) -> list[tuple[str, ...]]:
    """Return the trained languages of each training of a method."""
    if options.trainings[method].each_language:
        return [(language,) for language in options.languages]
    return [tuple(options.trainings[method].languages or options.languages)]


def _name(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int | str
) -> str:
    own = [languages[0]] if options.trainings[method].each_language else []
    return "-".join([method, *own, f"seed{seed}"])


def _overrides(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int
) -> list[str]:
    """Return the overrides of one training, without those of the comparison."""
    training = options.trainings[method]
    overrides = [*training.overrides, f"seed={seed}"]
    if training.each_language or training.languages:
        overrides.append(f"data.languages=[{','.join(languages)}]")
    if training.start:
        start = _name(options, training.start, languages, seed)
        overrides.append(f"training.init_from={Path(options.exp_dir, start, MODEL)}")
    if training.masks:
        # a training of all languages takes one file of masks for each language
        of = languages if training.each_language else ["{language}"]
        name = _name(options, training.masks, of, seed)
        file = MODEL if _keeps_masks(options, method) else _pruned(training.sparsity)
        path = Path(options.exp_dir, name, file)
        overrides.append(f"weight_pruning.pathways.masks={path}")
    return overrides


def _after(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int
) -> list[str]:
    """Return the names of the cells whose models a training begins with."""
    training = options.trainings[method]
    names = []
    for source in (training.start, training.masks):
        if source:
            one = options.trainings[source].each_language
            parts = [(language,) for language in languages] if one else [tuple(languages)]
            names += [_name(options, source, part, seed) for part in parts]
    return list(dict.fromkeys(names))


def _lineage(after: Sequence[LanguagesCell]) -> tuple[tuple[str, str], ...]:
    lineage: dict[str, str] = {}
    for source in after:
        overrides = "\0".join(source.overrides).encode()
        lineage |= dict(source.lineage)
        lineage[source.name] = hashlib.blake2b(overrides, digest_size=6).hexdigest()
    return tuple(sorted(lineage.items()))


def _keeps_masks(options: PathwaysStudyOptions, method: str) -> bool:
    """Return whether a training begins with the weights and the very masks of another."""
    training = options.trainings[method]
    return training.masks == training.start and not training.sparsity


def _pruned(sparsity: float) -> str:
    return f"pruned-{sparsity:g}.pt"
