"""Start a training from a trained model, of the same tokenizer or of another one.

With the same one, the model must be of the same shape, and all of it is taken. With another one the
encoder is; of what comes after it, each parameter of the same shape; and of those that have a row
for each symbol, the rows of the symbols that both tokenizers have, by the symbol's text.
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
_ALWAYS = ("encoder.", "feature_")  # what must be of the same shape with any tokenizer

State = Mapping[str, Tensor]


def load_initial(model: nn.Module, config: Config, identity: Mapping[str, Any]) -> None:
    """Give a model the weights of ``training.init_from``, and its feature statistics.

    What a training has pruned gradually starts as it decodes, with masked weights at zero; but
    where pathways begin with masks that are named, all weights are what they are masks over.

    Args:
        config: of the new training.
        identity: its ``tokenizer_digest`` and ``symbols``.

    Raises:
        UserError: the file is missing, damaged or no model; of another shape; of pathways, which
            are several networks; its languages have own weights, which this training would not
            use; or weights that it does not give would be frozen.
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
        _start_with_other_symbols(
            model, theirs, content.get("symbols"), config, identity["symbols"]
        )
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
    """See, before there is a tokenizer, whether a training could start from a file.

    Args:
        model: with any number of symbols.

    Raises:
        UserError: the file is no model, or its encoder is another one.
    """
    theirs = merged_state(read_model_file(path, _KEY)["model"])
    _check_shapes(model.state_dict(), theirs, path, _ALWAYS)


def _weights(content: Mapping[str, Any], path: Path, config: Config) -> tuple[State, float]:
    """The weights to start from, and how sparse they are by a mask that was put on."""
    masks, pruning = masks_of(content), config.weight_pruning
    method = content["config"].get("weight_pruning", {}).get("method", "none")
    if not masks or method == "supernet":  # whose dense network is one of its own
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
        with torch.random.fork_rng(devices=[]):  # the weights that it is made with are not used
            source, _ = model_of(content, path)
    except UserError as error:
        raise UserError(f"{_KEY}={path}: {error}") from error
    return source.state_dict(), masks["sparsity"]


def _other_options(
    theirs: Mapping[str, Any], own: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    """The options of two models that differ, as ``name there -> here``, but for dropout."""
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
        path: of the file, for the message.
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
    """What a model with other symbols got of a file: names of parameters, and weights."""

    kept: list[str] = field(default_factory=list)
    partly: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    copied: int = 0  # weights of those partly kept


def _start_with_other_symbols(
    model: nn.Module,
    theirs: State,
    symbols: list[str] | None,
    config: Config,
    own_symbols: list[str],
) -> None:
    """Start from a model that has another tokenizer.

    The function copies the weights that do not depend on the symbols. Of the other weights it
    copies the rows of symbols that both models have. The rest stays as initialised.

    Args:
        model: the new model.
        theirs: the state in the file.
        symbols: of the file; None: the file does not name them.
        config: of the new training.
        own_symbols: of the new model.

    Raises:
        UserError: the new training protects pathways, and the tokenizer does not begin with the
            symbols of the file; or a frozen parameter would stay as initialised.
    """
    path, protects = config.training.init_from, config.weight_pruning.pathways.protect
    protects = config.weight_pruning.method == "pathways" and protects
    if protects and (not symbols or own_symbols[: len(symbols)] != symbols):
        raise UserError(
            f"weight_pruning.pathways.protect=true: the tokenizer in --lang-dir does not begin "
            f"with the symbols of {_KEY}={path}, so ids of its languages would mean other "
            "symbols. Give the tokenizer of that training (run.sh: --bpe-model), or extend it "
            "(asrprune tokenizer --extend)"
        )
    places = {symbol: place for place, symbol in enumerate(symbols or [])}
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
    unknown = "it does not say which (a file of an older version)"
    log.warning(
        "starting from %s, whose tokenizer is another one: %s\n"
        "  kept:        %s parameters: %s\n"
        "  partly kept: %s of %s, the rows of those symbols: %s\n"
        "  fresh:       %s: %s\n"
        "  features are normalised by its mean and standard deviation",
        path,
        unknown if symbols is None else common,
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
    """Take over what fits of other weights.

    Args:
        axes: of parameters that depend on the symbols, see `_symbol_axes`.
        rows: places of the common symbols here and there, (n,) int64 each.
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
    """The parameters that grow with the number of symbols, and their axis of symbols.

    None where a parameter does not have one entry for each symbol along one axis.
    """
    with torch.device("meta"):  # without weights
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
    """The modules of some parameters, the encoder as one; of those that others share, the names."""
    shared = {_module(name) for other in others for name in other}
    found = [name if _module(name) in shared else _module(name) for name in names]
    return ", ".join(dict.fromkeys(found)) or "none"


def _module(name: str) -> str:
    return "encoder" if name.startswith("encoder.") else name.rpartition(".")[0] or name
