"""Start a training from a trained model with the same tokenizer or with another tokenizer.

With the same tokenizer, the model must have the same shapes, and all parameters are copied. With
another tokenizer, the encoder must have the same shapes and is copied. Other parameters are copied
if their shapes are equal. A parameter may have a row for each symbol. Then the rows of the symbols
that both tokenizers have are copied. Symbols are compared by their text.
"""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.config import Config
from asrprune.training.low_rank import merged_state, without_low_rank
from asrprune.training.model_file import masks_of, model_of, read_model_file
from asrprune.training.own_weights import check_used
from asrprune.transducer.model import build_model

log = logging.getLogger(__name__)

_KEY = "training.init_from"
_ALWAYS = ("encoder.", "feature_")  # parameters that need equal shapes with any tokenizer

State = Mapping[str, Tensor]


def load_initial(model: nn.Module, config: Config, identity: Mapping[str, Any]) -> None:
    """Load the weights and the feature statistics of ``training.init_from`` into a model.

    A model that was pruned gradually starts with zeros for its masked weights, as it decodes. A
    training of pathways with masks from a file is an exception: it starts with all weights.

    Args:
        model: the model of the new training.
        config: the configuration of the new training.
        identity: the ``tokenizer_digest`` and the ``symbols`` of the new training.

    Raises:
        UserError: the file is missing, damaged or no model; its model has other shapes; it has
            pathways, which are several networks; its languages have own weights, which this
            training would not use; or parameters that the file does not give are frozen.
    """
    path = Path(config.training.init_from)
    content = read_model_file(path, _KEY)
    theirs, sparsity = _weights(content, path, config)
    same = content["tokenizer_digest"] == identity["tokenizer_digest"]
    own = without_low_rank(model.state_dict())
    _check_shapes(own, theirs, path, () if same else _ALWAYS)
    if same:
        model.load_state_dict({**model.state_dict(), **theirs})
        log.info(
            "starting from %s: all of its %s parameters, and its mean and standard deviation of "
            "features",
            path,
            f"{_size(model.parameters()):,}",
        )
    else:
        _start_with_other_symbols(model, theirs, content["symbols"], config, identity["symbols"])
    if others := _other_options(content["config"]["model"], dataclasses.asdict(config.model)):
        log.warning(
            "the model of %s had other options, and equal shapes do not mean that it computes the "
            "same: %s",
            path,
            ", ".join(others),
        )
    if sparsity:
        log.info(
            "%s was pruned gradually: masked weights start at zero. Those that stay there are "
            "weight_pruning.method=gradual with schedule.kind=constant schedule.freeze=0 "
            "schedule.final=%g",
            path,
            sparsity,
        )


def check_initial(model: nn.Module, path: Path) -> None:
    """Check that a training can start from a file. No tokenizer is needed.

    Args:
        model: the model of the new training, with any number of symbols.
        path: the file.

    Raises:
        UserError: the file is no model, or its encoder has other shapes.
    """
    theirs = merged_state(read_model_file(path, _KEY)["model"])
    _check_shapes(model.state_dict(), theirs, path, _ALWAYS)


def _weights(content: Mapping[str, Any], path: Path, config: Config) -> tuple[State, float]:
    """Return the weights to start from, and the sparsity of the mask that was applied to them.

    The sparsity is 0 if no mask was applied.

    Args:
        content: the content of the file.
        path: the file, for messages.
        config: the configuration of the new training.

    Raises:
        UserError: the weights do not fit the file's configuration; or the file has pathways or own
            weights that the training would not use.
    """
    masks, pruning = masks_of(content), config.weight_pruning
    method = content["config"].get("weight_pruning", {}).get("method", "none")
    if not masks or method == "supernet":  # the dense network belongs to a supernet's sub-networks
        return merged_state(content["model"]), 0.0
    if method == "pathways" and pruning.method != "pathways":
        raise UserError(
            f"{_KEY}={path} has a network for each language, and they share weights: take one out "
            "(asrprune extract --language) and start from that, or go on with "
            f"weight_pruning.method=pathways weight_pruning.pathways.masks={path}"
        )
    check_used(content, pruning.pathways.protect, f"{_KEY}={path}")
    if pruning.method == "pathways" and (method == "pathways" or pruning.pathways.masks):
        return content["model"], 0.0
    try:
        with torch.random.fork_rng(devices=[]):  # the initial random weights are not used
            source, _ = model_of(content, path)
    except UserError as error:
        raise UserError(f"{_KEY}={path}: {error}") from error
    return source.state_dict(), masks["sparsity"]


def _other_options(
    theirs: Mapping[str, Any], own: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """Return the options in which two models differ, without dropout, as ``name there -> here``.

    Args:
        theirs: the model options of the file.
        own: the model options of the new training.
        prefix: the text before the names of these options.
    """
    found = []
    for key in dict.fromkeys([*theirs, *own]):
        there, here = theirs.get(key, "default"), own.get(key, "default")
        if isinstance(there, Mapping) and isinstance(here, Mapping):
            found += _other_options(there, here, f"{prefix}{key}.")
        elif there != here and "dropout" not in key:
            found.append(f"{prefix}{key} {there} -> {here}")
    return found


def _check_shapes(own: State, theirs: State, path: Path, parts: tuple[str, ...]) -> None:
    """Check that two models have the same parameters, of the same shapes.

    Args:
        own: the state of the new model.
        theirs: the state in the file.
        path: the file, for the message.
        parts: beginnings of the names to compare; empty: all names.

    Raises:
        UserError: a parameter is missing on one side, or its shapes differ.
    """
    for name in dict.fromkeys([*own, *theirs]):
        if parts and not name.startswith(parts):
            continue
        if name not in own or name not in theirs or own[name].shape != theirs[name].shape:
            there, here = (
                f"of shape {tuple(state[name].shape)}" if name in state else "none"
                for state in (theirs, own)
            )
            raise UserError(
                f"{_KEY}={path} is of another shape: {name} is {there} there and "
                f"{here} here; take the model options of that training"
            )


@dataclass
class _Taken:
    """Record which parameters of a model with other symbols were copied from a file."""

    kept: list[str] = field(default_factory=list)  # names of parameters that were copied whole
    partly: list[str] = field(default_factory=list)  # names of parameters that were copied in part
    fresh: list[str] = field(default_factory=list)  # names of parameters that were not copied
    copied: int = 0  # number of copied weights of the parameters in `partly`


def _start_with_other_symbols(
    model: nn.Module,
    theirs: State,
    symbols: list[str],
    config: Config,
    own_symbols: list[str],
) -> None:
    """Start from a model that has another tokenizer.

    The function copies the weights that do not depend on the symbols. Of the other weights it
    copies the rows of symbols that both models have. The rest stays as initialised.

    Args:
        model: the new model.
        theirs: the state in the file.
        symbols: the symbols of the file.
        config: the configuration of the new training.
        own_symbols: the symbols of the new model.

    Raises:
        UserError: the new training protects pathways, and the tokenizer does not begin with the
            symbols of the file; or a frozen parameter would stay as initialised.
    """
    path, protects = config.training.init_from, config.weight_pruning.pathways.protect
    protects = config.weight_pruning.method == "pathways" and protects
    if protects and own_symbols[: len(symbols)] != symbols:
        raise UserError(
            f"weight_pruning.pathways.protect=true: the tokenizer in --lang-dir does not begin "
            f"with the symbols of {_KEY}={path}, so ids of its languages would mean other "
            "symbols. Give the tokenizer of that training (run.sh: --bpe-model), or extend it "
            "(asrprune tokenizer --extend)"
        )
    places = {symbol: place for place, symbol in enumerate(symbols)}
    here = [place for place, symbol in enumerate(own_symbols) if symbol in places]
    rows = torch.tensor(here), torch.tensor([places[own_symbols[place]] for place in here])
    taken = _copy(model, theirs, _symbol_axes(config, len(own_symbols)), rows)
    parameters = dict(model.named_parameters())
    frozen = [name for name in [*taken.partly, *taken.fresh] if not parameters[name].requires_grad]
    if frozen:
        what = "rows of " if frozen[0] in taken.partly else ""
        raise UserError(
            f"training.freeze: {what}{frozen[0]} would stay as initialised, for {path} is of "
            "another tokenizer and does not give them. Take it out of training.freeze, or give "
            "that training's tokenizer (run.sh: --bpe-model)"
        )
    whole, part, fresh = (
        _size(parameters[name] for name in names)
        for names in (taken.kept, taken.partly, taken.fresh)
    )
    common = f"{len(here)} of the {len(own_symbols)} symbols here are among its {len(places)}"
    log.warning(
        "starting from %s, whose tokenizer is another one: %s\n"
        "  kept:        %s parameters: %s\n"
        "  partly kept: %s of %s, the rows of those symbols: %s\n"
        "  fresh:       %s: %s\n"
        "  features are normalised by its mean and standard deviation",
        path,
        common,
        *(f"{whole:,}", _listed(taken.kept, taken.partly, taken.fresh)),
        *(f"{taken.copied:,}", f"{part:,}", _listed(taken.partly, taken.fresh, taken.kept)),
        *(f"{fresh:,}", _listed(taken.fresh, taken.kept, taken.partly)),
    )


@torch.no_grad()
def _copy(
    model: nn.Module,
    theirs: State,
    axes: Mapping[str, int | None],
    rows: tuple[Tensor, Tensor],
) -> _Taken:
    """Copy the weights of a file that fit into a model.

    Args:
        model: the new model.
        theirs: the state in the file.
        axes: the axis of symbols of each parameter that depends on the symbols, see `_symbol_axes`.
        rows: ids of the common symbols in the new model and in the file, (n,) int64 each.

    Returns:
        The names of the parameters that were copied.
    """
    taken, (here, there) = _Taken(), rows
    parameters = dict(model.named_parameters())
    for name, value in without_low_rank(model.state_dict()).items():
        found, axis = theirs.get(name), axes.get(name)
        copied = 0
        if found is not None and name not in axes and found.shape == value.shape:
            value.copy_(found)
            copied = value.numel()
        elif found is not None and axis is not None and len(here):
            shape = [*found.shape[:axis], value.shape[axis], *found.shape[axis + 1 :]]
            if shape == [*value.shape]:
                part = found.index_select(axis, there).to(value)
                value.index_copy_(axis, here.to(value.device), part)
                copied = part.numel()
        if name not in parameters:
            continue  # a buffer, or a second name of a parameter
        if copied == value.numel():
            taken.kept.append(name)
        elif copied:
            taken.partly.append(name)
            taken.copied += copied
        else:
            taken.fresh.append(name)
    return taken


def _symbol_axes(config: Config, vocab_size: int) -> dict[str, int | None]:
    """Return the axis of symbols of each parameter that grows with the number of symbols.

    The axis is None if the parameter does not have one entry for each symbol along a single axis.
    """
    with torch.device("meta"):  # no memory is allocated for the weights
        one, more = (
            build_model(config.model, config.loss, size).state_dict()
            for size in (vocab_size, vocab_size + 1)
        )
    axes: dict[str, int | None] = {}
    for name, value in one.items():
        shape, grown = tuple(value.shape), tuple(more[name].shape)
        if shape != grown:
            differ = [axis for axis, (a, b) in enumerate(zip(shape, grown, strict=False)) if a != b]
            single = len(differ) == 1 and (shape[differ[0]], grown[differ[0]]) == (
                vocab_size,
                vocab_size + 1,
            )
            axes[name] = differ[0] if single else None
    return axes


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _listed(names: list[str], *others: list[str]) -> str:
    """Return the names of the modules of some parameters as text.

    The encoder counts as one module. If a parameter of ``others`` is in the same module, the name
    of the parameter is given in place of the module.

    Args:
        names: names of the parameters.
        others: other lists of names.
    """
    shared = {_module(name) for other in others for name in other}
    found = [name if _module(name) in shared else _module(name) for name in names]
    return ", ".join(dict.fromkeys(found)) or "none"


def _module(name: str) -> str:
    return "encoder" if name.startswith("encoder.") else name.rpartition(".")[0] or name
