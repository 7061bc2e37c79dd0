"""Write the pathways of several languages as one model file.

The file stores each weight that any of the languages keeps once. It stores a bit for each language
and each block or unit. ``decode``, ``export`` and ``extract`` read the file. A training can begin
with the file, but weights that none of the languages keeps are lost.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.export.network import smaller
from asrprune.export.source import Source
from asrprune.training.banks import make_bank
from asrprune.training.model_file import description, masks_of
from asrprune.training.own_weights import own_weights_of
from asrprune.weight_pruning.masks.cutting import cut_state
from asrprune.weight_pruning.masks.packing import packed_state
from asrprune.weight_pruning.pathways import pathway_of


def pathways_content(source: Source, languages: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of a model file with the pathways of some languages.

    Args:
        source: a model with pathways.
        languages: the languages; empty: all languages of the model.

    Raises:
        UserError: the model has no pathways, or no pathway of a language.
    """
    bank = source.bank
    if not bank.names:
        raise UserError(
            f"--pathways: {source.path} has no pathways. Give a model that was trained with "
            "weight_pruning.method=pathways"
        )
    languages = [pathway_of(bank.names, language) for language in languages or bank.names]
    union = bank.union(*languages)
    own = {
        language: one
        for language, one in own_weights_of(source.content).items()
        if language in languages
    }
    if bank.cuts:
        return _cut(source, languages, union, own)
    masks = bank.state_dict()
    named = {name: bits for name, bits in masks["named"].items() if name in languages}
    return {
        "model": packed_state(source.content["model"], bank, union),
        **description(source.content),
        "masks": _masks(source, {**masks, "named": named}, own),
    }


def _cut(
    source: Source,
    languages: Sequence[str],
    union: Mapping[str, Tensor],
    own: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the content of a file whose matrices hold only the units of the union.

    Args:
        source: a model with pathways, of units that can be cut out.
        languages: the languages.
        union: the units (units,) bool of each group that any of the languages keeps.
        own: the own weights of each language that has some.
    """
    model, config = smaller(source, union)
    options = source.config.weight_pruning
    config.weight_pruning = dataclasses.replace(
        config.weight_pruning,
        method=options.method,
        schedule=options.schedule,
        pathways=options.pathways,
    )
    bank = make_bank(model, config.weight_pruning)
    for language in languages:
        units = source.bank.blocks(language)
        bank.name(language, {name: kept[union[name]] for name, kept in units.items()})
    about = {**description(source.content), "config": dataclasses.asdict(config)}
    return {
        "model": model.state_dict(),
        **about,
        "masks": _masks(
            source,
            bank.state_dict(),
            {language: _own_cut(source, one, union, about) for language, one in own.items()},
        ),
    }


def _own_cut(
    source: Source,
    own: Mapping[str, Any],
    union: Mapping[str, Tensor],
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return own weights for the smaller model, whose layers may have new numbers."""
    state = cut_state({**source.content["model"], **own["values"]}, source.bank.groups, union)
    before = {id(value) for value in own["values"].values()}
    pruning = {
        **own["config"]["weight_pruning"],
        **{key: about["config"]["weight_pruning"][key] for key in ("include", "exclude")},
    }
    config = {
        **own["config"],
        "model": about["config"]["model"],
        "weight_pruning": pruning,
    }
    values = {name: value for name, value in state.items() if id(value) in before}
    return {**own, "config": config, "values": values}


def _masks(source: Source, bank: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    masks = {"sparsity": masks_of(source.content)["sparsity"], "bank": bank}
    return {**masks, "own": dict(own)} if own else masks
