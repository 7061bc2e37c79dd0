"""Compute digests of the models and masks that a training reads from files at its start.

The content behind a path may change: a start model may have been trained further, or averaged
differently. So a training keeps these digests. A resume is refused if they differ.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asrprune.config import Config
from asrprune.training.checkpoint import load_checkpoint
from asrprune.training.model_file import masks_of
from asrprune.weight_pruning.options import LANGUAGE

log = logging.getLogger(__name__)

TEACHER = "training.teacher"  # all steps need the teacher; its path may change

# Option -> what a training takes of the option's file. The masks count because the start model of a
# gradual pruning has its mask applied.
_TAKEN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "training.init_from": lambda content: [content.get("model"), masks_of(content)],
    TEACHER: lambda content: [content.get("model"), masks_of(content), _model_options(content)],
    "weight_pruning.pathways.masks": masks_of,
}


def digests_of(config: Config, languages: Sequence[str]) -> dict[str, str]:
    """Return a digest of what a training takes of each file.

    Args:
        config: the configuration of the training.
        languages: the languages of the training. Each may have its own file of masks.

    Returns:
        ``option=path`` -> digest. The key of the teacher has no path, which may change on a resume.
        Files that do not exist are left out.

    Raises:
        UserError: a file is damaged.
    """
    return {
        key if key == TEACHER else f"{key}={path}": digest(_TAKEN[key](load_checkpoint(path)))
        for key, path in _files(config, languages)
        if path.is_file()
    }


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that have changed since the start of the training, as ``option=path``.

    A missing file is only logged. The teacher is an exception: it counts as changed if a training
    loses or gains a teacher.

    Args:
        before: the digests at the start of the training.
        now: the present digests.
    """
    for name in before:
        if name not in now and name != TEACHER:
            log.info("%s is gone since the training began with it; it is not needed", name)
    changed = [name for name, was in before.items() if now.get(name, was) != was]
    return changed + [TEACHER] * ((TEACHER in before) != (TEACHER in now))


def digest(value: Any) -> str:
    """Return a digest of 32 hexadecimal digits for tensors in nested dicts and lists."""
    code = hashlib.blake2b(digest_size=16)
    _feed(code, value)
    return code.hexdigest()


def _model_options(content: Mapping[str, Any]) -> Any:
    return content.get("config", {}).get("model")


def _files(config: Config, languages: Sequence[str]) -> Iterator[tuple[str, Path]]:
    masks = config.weight_pruning.pathways.masks
    each = [masks.replace(LANGUAGE, name) for name in languages] if LANGUAGE in masks else [masks]
    models = [config.training.init_from], [config.training.teacher]
    for key, names in zip(_TAKEN, (*models, each), strict=True):
        yield from ((key, Path(name)) for name in names if name)


def _feed(code: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        code.update(f"{value.dtype} {tuple(value.shape)}\0".encode())
        code.update(value.contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        for key in sorted(value):
            code.update(f"{key!r}\0".encode())
            _feed(code, value[key])
    elif isinstance(value, list | tuple):
        code.update(f"{len(value)}\0".encode())
        for part in value:
            _feed(code, part)
    else:
        code.update(f"{value!r}\0".encode())
