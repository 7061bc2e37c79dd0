"""The cells of a comparison of models of several languages: trainings, and what they begin with."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asrprune.config import load_config
from asrprune.studies.measured import data_words, decoding_words, train_steps
from asrprune.studies.pathways.options import PathwaysStudyOptions
from asrprune.studies.study import TRAIN, Cell

MODEL = "averaged.pt"


@dataclass(frozen=True, kw_only=True)
class LanguagesCell(Cell):
    """A training of some languages.

    ``pruned``: the sparsities to which others want its model; ``lineage``: the names of all cells
    that it begins with, and a digest of the words of each.
    """

    languages: tuple[str, ...]
    pruned: tuple[float, ...]
    lineage: tuple[tuple[str, str], ...]


def cells_of(options: PathwaysStudyOptions, more: Sequence[str] = ()) -> list[LanguagesCell]:
    """The trainings of a grid and all that they begin with, each once, the first seed first.

    Args:
        more: words for all trainings, after the comparison's own.

    Raises:
        UserError: words that the configuration refuses.
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
                if its_seed == seed and options.trainings[places[other]].masks == method
            }
        )
        for languages in _parts(options, method):
            words = [*options.words, *more, *_words(options, method, languages, seed)]
            # a misspelt word is found here, before hours of training; seeds do not differ in that
            if method not in epochs:
                epochs[method] = load_config(options.config, words).training.epochs
            name, after = _name(options, method, languages, seed), []
            for source in _after(options, method, languages, seed):
                after.append(cells[source])
            cells[name] = LanguagesCell(
                name=name,
                method=method,
                seed=seed,
                words=tuple(words),
                epochs=epochs[method],
                after=tuple(source.name for source in after),
                languages=languages,
                pruned=tuple(pruned),
                lineage=_lineage(after),
            )
    return list(cells.values())


def sources_of(options: PathwaysStudyOptions, method: str) -> list[str]:
    """The trainings that a training begins with, those that these begin with, and so on."""
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
    """The test set of a language."""
    return options.test_sets[options.languages.index(language)]


def steps_of(
    options: PathwaysStudyOptions, cell: LanguagesCell, folder: Path
) -> dict[str, list[str]]:
    """Train, average, decode, score; and prune what others begin with."""
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
        steps[f"prune {sparsity:g}"] = ["prune", *model, "--sparsity", f"{sparsity:g}", *output]
    return steps


def needs_of(cell: LanguagesCell) -> dict[str, str]:
    """Step -> the step whose output it takes."""
    pruned = {f"prune {sparsity:g}": "average" for sparsity in cell.pruned}
    return {"average": TRAIN, "decode": "average", "score": "decode", **pruned}


def _parts(options: PathwaysStudyOptions, method: str) -> list[tuple[str, ...]]:
    """The languages of each training of a method."""
    if options.trainings[method].each_language:
        return [(language,) for language in options.languages]
    return [tuple(options.languages)]


def _name(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int | str
) -> str:
    own = [languages[0]] if options.trainings[method].each_language else []
    return "-".join([method, *own, f"seed{seed}"])


def _words(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int
) -> list[str]:
    """A training's own words."""
    training = options.trainings[method]
    words = [*training.words, f"seed={seed}"]
    if training.each_language:
        words.append(f"data.languages=[{languages[0]}]")
    if training.start:
        start = _name(options, training.start, languages, seed)
        words.append(f"training.init_from={Path(options.exp_dir, start, MODEL)}")
    if training.masks:
        # of all languages, where there is a file of each
        of = languages if training.each_language else ["{language}"]
        name = _name(options, training.masks, of, seed)
        path = Path(options.exp_dir, name, _pruned(training.sparsity))
        words.append(f"weight_pruning.pathways.masks={path}")
    return words


def _after(
    options: PathwaysStudyOptions, method: str, languages: Sequence[str], seed: int
) -> list[str]:
    """The cells whose models a training begins with."""
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
        words = "\0".join(source.words).encode()
        lineage |= dict(source.lineage)
        lineage[source.name] = hashlib.blake2b(words, digest_size=6).hexdigest()
    return tuple(sorted(lineage.items()))


def _pruned(sparsity: float) -> str:
    return f"pruned-{sparsity:g}.pt"
