"""Collects the values of the report on a pathways model."""

from typing import Any

from asrprune.export.source import Source
from asrprune.report.pathways.renewals import Renewals
from asrprune.training.own_weights import count_own_weights, own_weights_of
from asrprune.weight_pruning.masks.bank import Choice, MaskBank
from asrprune.weight_pruning.masks.sharing import intersection, sharing

Record = dict[str, Any]


def record_of(source: Source, scores: list[dict[str, Any]], renewals: Renewals) -> Record:
    """Return the values of the report on a model with named masks.

    Densities are shares of the weights of the pruned layers, 0 to 1. ``parameters`` are the weights
    of the whole model that are kept or never pruned. The union also has the own weights of
    languages (`asrprune.training.own_weights`), and all languages share no such weight.
    ``mask_bytes`` is the size of masks in the model file, one bit for each unit.

    The union has three more densities for comparison. ``equal``: if all masks were equal (1-s).
    ``independent``: if masks were independent (1-s^L). ``chance``: as in
    `asrprune.weight_pruning.masks.sharing`.

    Args:
        source: the model.
        scores: error rates from `asrprune.report.pathways.scores.scores_of`.
        renewals: the renewals of the masks over the training.

    Raises:
        UserError: the model has no named masks.
    """
    bank, names = source.bank, sorted(source.bank.names)
    found = sharing(bank, names)
    own = own_weights_of(source.content)
    parameters = dict(source.model.named_parameters(remove_duplicate=False))
    others = {name for one in own.values() for name in one["values"]}
    not_shared = sum({id(parameters[name]): parameters[name].numel() for name in others}.values())
    masks = {name: bits.nbytes for name, bits in bank.state_dict()["named"].items()}
    return {
        "model": str(source.path),
        "block": bank.unit,
        "sparsity": source.sparsest,
        "dense": _sizes(bank, 0.0),
        "languages": {
            language: {**_sizes(source.of(language).bank, language), "mask_bytes": masks[language]}
            for language in names
        },
        "union": {
            **_sizes(bank, bank.union(*names), count_own_weights(own)),
            "mask_bytes": sum(masks.values()),
            "equal": found.equal_union,
            "chance": found.chance_union,
            "independent": found.independent_union,
        },
        "shared": {
            **_sizes(bank, intersection(bank, names), -not_shared),
            "chance": found.chance_shared,
        },
        "overlap": {
            "languages": found.names,
            "jaccard": found.overlap.tolist(),
            "chance": found.chance_overlap.tolist(),
        },
        "layers": [
            {
                "name": name,
                "weights": int(weights),
                "union": int(either) / int(weights),
                "shared": int(common) / int(weights),
                "languages": {
                    language: int(kept) / int(weights)
                    for language, kept in zip(found.names, own, strict=True)
                },
            }
            for name, weights, either, common, own in zip(
                found.layers, found.weights, found.either, found.common, found.kept.T, strict=True
            )
        ],
        "scores": scores,
        "renewals": renewals,
    }


def _sizes(bank: MaskBank, choice: Choice, more: int = 0) -> dict[str, Any]:
    parameters = bank.kept_parameters(choice) + more
    return {"density": bank.density(choice), "parameters": parameters}
