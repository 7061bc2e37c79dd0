"""What a training began with: digests of the models and of the masks that it took from files.

A path says nothing of what the file held: a start model that was trained on since, or averaged
otherwise, has the same name. So a training keeps these digests, and is refused where they differ.
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

TEACHER = "training.teacher"  # needed in all steps, and wherever it lies

# option -> what a training takes of its file; of what was pruned gradually, weights with a mask on
_TAKEN: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "training.init_from": lambda content: [content.get("model"), masks_of(content)],
    TEACHER: lambda content: [content.get("model"), masks_of(content), _model_options(content)],
    "weight_pruning.pathways.masks": masks_of,
}


def digests_of(config: Config, languages: Sequence[str]) -> dict[str, str]:
    """Of each file that a training begins with: ``option=path`` -> a digest of what it takes.

    Files that do not exist are left out. The teacher has no path: it may lie elsewhere on resume.

    Args:
        languages: that are trained; each may have a file of masks.

    Raises:
        UserError: a file is damaged.
    """
    return {
        key if key == TEACHER else f"{key}={path}": digest(_TAKEN[key](load_checkpoint(path)))
        for key, path in _files(config, languages)
        if path.is_file()
    }


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files, as ``option=path``, that hold something else than when the training began.

    One that is gone cannot have changed: it is noted, no more. But a training has its teacher from
    its start to its end.
    """
    for name in before:
        if name not in now and name != TEACHER:
            log.info("%s is gone since the training began with it; it is not needed", name)
    changed = [name for name, was in before.items() if now.get(name, was) != was]
    return changed + [TEACHER] * ((TEACHER in before) != (TEACHER in now))


def digest(value: Any) -> str:
    """32 hexadecimal digits for tensors in any nesting of dicts and lists."""
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
