"""The trainings of each method of a comparison of sparse models, and what is taken out of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from asrprune.base.errors import UserError
from asrprune.compare.weight_pruning.options import (
    DENSE,
    DENSE_WAY,
    GRADUAL,
    ONE_SHOT,
    RANDOM_SEARCH,
    SEARCHED,
    SMALL,
    SUPERNET,
    WeightStudyOptions,
)
from asrprune.config import Config, load_config

START = "{dense}"  # in an override: the model of the dense training with the same seed
_GRADUAL_WAY, _SUPERNET_WAY = (f"weight_pruning.method={name}" for name in (GRADUAL, SUPERNET))

Training = tuple[str, list[str], list["Network"]]  # name, own overrides, networks


@dataclass(frozen=True)
class Network:
    """A network that is extracted from a training's model.

    Attributes:
        method: how the network is chosen, such as ``searched``.
        sparsity: the network is at most as large as the uniform network of this sparsity.
    """

    method: str
    sparsity: float

    @property
    def name(self) -> str:
        """The folder of the network inside the training's folder, such as ``searched-0.7``."""
        return f"{self.method}-{self.sparsity:g}"


def trainings_of(
    options: WeightStudyOptions, method: str, overrides: Sequence[str]
) -> list[Training]:
    """Return name, own overrides and networks of each training of a method with one seed.

    Args:
        options: options of the comparison.
        method: the method of the trainings.
        overrides: the overrides of all trainings.

    Raises:
        UserError: the widths of smaller models cannot be found.
    """
    levels = options.sparsities
    if method == DENSE:
        return [(method, [DENSE_WAY], [Network(ONE_SHOT, level) for level in levels])]
    if method == SMALL:
        config = load_config(options.config, overrides)
        widths = {level: _smaller(config, level) for level in levels if level}
        return _one_for_each(method, {level: [DENSE_WAY, *own] for level, own in widths.items()})
    given = options.methods.get(method, [])
    if method == GRADUAL or _GRADUAL_WAY in given:
        final = "weight_pruning.schedule.final"
        return _one_for_each(
            method,
            {level: [_GRADUAL_WAY, *given, f"{final}={level:g}"] for level in levels if level},
        )
    if DENSE_WAY in given:
        return [(method, given, [Network(method, 0.0)])]
    networks = [Network(method, level) for level in levels]
    if method == SUPERNET:
        found = (SEARCHED, RANDOM_SEARCH)
        networks += [Network(way, level) for way in found for level in options.searched]
        return [(method, [_SUPERNET_WAY, *given], networks)]
    usual = options.methods.get(SUPERNET, [])
    return [(method, [_SUPERNET_WAY, *usual, *given], networks)]


def _one_for_each(method: str, overrides: dict[float, list[str]]) -> list[Training]:
    """Return a training for each sparsity but 0. The network of sparsity 0 is the dense model."""
    return [
        (f"{method}-{level:g}", own, [Network(method, level)]) for level, own in overrides.items()
    ]


def _smaller(config: Config, sparsity: float) -> list[str]:
    """Return the overrides of a dense model with the sizes of a uniform sub-network.

    Args:
        config: the configuration of the dense training.
        sparsity: the sparsity of all layers of the sub-network.

    Raises:
        UserError: the weights are pruned in blocks, which leave all sizes as they are.
    """
    # imported late: these modules import torch
    from asrprune.training.banks import layer_patterns, make_bank, sizes_of
    from asrprune.transducer.model import build_model
    from asrprune.weight_pruning.masks.groups import LAYER

    if config.weight_pruning.unit == "block":
        raise UserError(
            f"method {SMALL}: small dense models have the sizes of networks with fewer channels, "
            "layers or heads. Set weight_pruning.unit=channel in overrides"
        )
    # Sizes follow from ranks, so any weights and any vocabulary will do. Only layers of different
    # widths differ.
    model = build_model(config.model, config.loss, vocab_size=2)
    bank = make_bank(model, config.weight_pruning)
    units = bank.blocks(sparsity)
    sizes = sizes_of(model, bank.groups, units)
    words = [f"model.encoder_options.{name}={_yaml(value)}" for name, value in sizes.items()]
    if bank.unit == LAYER:
        patterns = layer_patterns(model, bank.groups, units)
        words += [f"weight_pruning.{name}={_yaml(value)}" for name, value in patterns.items()]
    return words


def _yaml(value: int | list[int] | list[str]) -> str:
    return json.dumps(value, separators=(",", ":"))
