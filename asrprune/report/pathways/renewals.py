"""Reads the renewals of the languages' masks from the metrics of a training."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError

PREFIX = "pathway-"  # the kind of a line is this prefix and the language
NUMBERS = ("density", "changed", "union")
WAY_OUT = "give the folder of the training (stage 5), which writes it"

Renewals = dict[str, list[dict[str, Any]]]  # by language, in the order of the steps


def read_renewals(path: Path, languages: Sequence[str]) -> Renewals:
    """Return the renewals of each language's mask: ``step``, ``density``, ``changed``, ``union``.

    ``changed`` is 1 minus the overlap (Jaccard) with the mask before, and 1 for a first mask.
    ``union`` is the density of the union of all masks after the renewal. A language has no renewals
    if the training took its mask over and never changed it.

    Args:
        path: a file ``log/metrics.jsonl``. An incomplete last line is ignored: the training is
            running, or was killed.
        languages: the languages of the model.

    Raises:
        UserError: the file is missing, damaged, or of another training.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")[:-1]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} does not exist; {WAY_OUT}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: it is no UTF-8 text; {WAY_OUT}") from error
    found: Renewals = {language: [] for language in languages}
    for number, text in enumerate(lines, 1):
        try:
            line = json.loads(text)
            kind, step = line["kind"], line["step"]
            if not kind.startswith(PREFIX):
                continue
            values = {"step": int(step), **{name: float(line[name]) for name in NUMBERS}}
            if not all(map(math.isfinite, values.values())):
                raise ValueError("no number")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, line {number}, is damaged; {WAY_OUT}") from error
        language = kind.removeprefix(PREFIX)
        if language not in found:
            raise UserError(
                f"{path}, line {number}, is of another training than the model. The model has no "
                f"pathway for {language!r}, but for {', '.join(languages)}. Give the folder of the "
                "model's training, or the training's model by --model"
            )
        found[language].append(values)
    return found


def changes(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the renewals of one language that changed a mask. A first mask is no change."""
    return lines[1:] if lines and lines[0]["changed"] == 1 else lines
