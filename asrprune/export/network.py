"""Make a model of a sub-network: with masked weights, or with its dropped units cut out."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from asrprune.config import Config
from asrprune.export.source import Source
from asrprune.training.banks import layer_patterns, sizes_of
from asrprune.transducer.model import Transducer, build_model
from asrprune.weight_pruning.masks.bank import Choice
from asrprune.weight_pruning.masks.cutting import cut_state
from asrprune.weight_pruning.masks.groups import LAYER
from asrprune.weight_pruning.options import WeightPruningOptions


@contextmanager
def network(source: Source, choice: Choice | None) -> Iterator[Transducer]:
    """Yield the model of a sub-network in evaluation mode.

    If units can be cut out, the result is a new, smaller model. With blocks, the result is the
    model of the source, whose weights are masked while the context is open.

    Args:
        source: the model.
        choice: the sub-network; None: the whole model. A pathway computes with the own weights of
            its language.
    """
    if isinstance(choice, str):
        source = source.of(choice)
    if choice is None:
        yield source.model
    elif source.bank.cuts:
        yield smaller(source, choice)[0]
    else:
        with source.bank.apply(choice):
            yield source.model


def smaller(source: Source, choice: Choice) -> tuple[Transducer, Config]:
    """Return the model without the units that a sub-network drops, and its config.

    The config names the numbers of layers and heads, and the width of each module, so that the
    model loads, trains and exports like any other model. It has no masks.

    Raises:
        UserError: the sub-network keeps no channel of a module, or no layer.
    """
    groups, units = source.bank.groups, source.bank.blocks(choice)
    state = cut_state(source.content["model"], groups, units)
    config = copy.deepcopy(source.config)
    sizes = sizes_of(source.model, groups, units)
    config.model.encoder_options = {**config.model.encoder_options, **sizes}
    # the options of what can be pruned stay, so this model can be pruned in the same way again
    options, usual = config.weight_pruning, WeightPruningOptions()
    if options.unit == LAYER:  # layers have new numbers
        options = dataclasses.replace(options, **layer_patterns(source.model, groups, units))
    config.weight_pruning = dataclasses.replace(
        options,
        method="none",
        schedule=usual.schedule,
        supernet=usual.supernet,
        pathways=usual.pathways,
    )
    model = build_model(config.model, config.loss, source.content["vocab_size"])
    model.load_state_dict(state)
    return model.to(source.device).eval(), config
