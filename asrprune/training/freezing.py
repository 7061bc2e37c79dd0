"""Freeze the parameters that ``training.freeze`` names: they keep their exact values.

A frozen parameter has no gradient. So the optimiser does not update or decay it, and keeps no
moments of it. A frozen parameter is masked and averaged like other parameters. Its average over
steps is exactly its value.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from asrprune.base.errors import UserError, nearest

KEY = "training.freeze"
_HEADS = ("simple_am.", "simple_lm.")  # heads of the simple loss, which no search uses


def freeze(model: nn.Module, patterns: Sequence[str]) -> int:
    """Turn off the gradients of the named parameters, and return the number of frozen weights.

    Args:
        model: the model.
        patterns: names of modules, such as ``encoder.layers.0``, or of parameters. ``*`` stands for
            any letters, as in ``encoder.layers.*.norm``.

    Raises:
        UserError: a pattern matches nothing; nothing that a search uses is left to train; or a
            frozen norm keeps running statistics, which would go on changing.
    """
    names: dict[str, nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))
    for pattern in patterns:
        found = [name for name in names if _matches(name, pattern)]
        if not found:
            known = [*names, *(name for name, _ in model.named_modules() if name)]
            raise UserError(
                f"{KEY}: no parameter or module is named {pattern!r}{nearest(pattern, known)}; "
                f"there are {', '.join(name for name, _ in model.named_children())}, and "
                "`asrprune train --dry-run true weight_pruning.method=gradual` lists the matrices"
            )
        for name in found:
            names[name].requires_grad_(False)
    if patterns:
        _check_something_trains(model)
        _refuse_running_statistics(model)
    return sum(p.numel() for p in model.parameters() if not p.requires_grad)


def _check_something_trains(model: nn.Module) -> None:
    """Check that frozen parameters leave something to train.

    Args:
        model: the model with its frozen parameters.

    Raises:
        UserError: all parameters are frozen, or all but the heads of the simple loss.
    """
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    if all(name.startswith(_HEADS) for name in trained):
        left = "only the heads of the simple loss, which no search uses" if trained else "nothing"
        raise UserError(f"{KEY} leaves {left} to train: take some patterns out of it")


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _refuse_running_statistics(model: nn.Module) -> None:
    for name, part in model.named_modules():
        if not (isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats):
            continue
        own = list(part.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            raise UserError(
                f"{KEY}: {name} ({type(part).__name__}) is frozen, and keeps running statistics, "
                "which would go on changing; use an encoder with layer norms, or "
                "track_running_stats=False"
            )
