"""How the masks of the languages changed over a training: their renewals, of its metrics."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asrprune.errors import UserError

PREFIX = "pathway-"  # of a line's kind, before the language
NUMBERS = ("density", "changed", "union")
WAY_OUT = "give the folder of the training (stage 5), which writes it"

Renewals = dict[str, list[dict[str, Any]]]  # by language, in the order of the steps


def read_renewals(path: Path, languages: Sequence[str]) -> Renewals:
    """The renewals of each language's mask: ``step``, ``density``, ``changed`` and ``union``.

    ``changed`` is 1 less the overlap (Jaccard) with the mask before, and 1 of a first mask;
    ``union`` is the density of all masks after it. Of a language whose mask the training took over
    and left as it was there are none.

    Args:
        path: a ``log/metrics.jsonl``. The half of a line at its end, of a training that is at work
            or was killed, is passed over.
        languages: of the model.

    Raises:
        UserError: the file is missing, damaged, or of another training.
    """
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")[:-1]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path} does not exist; {WAY_OUT}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text: it is damaged; {WAY_OUT}") from error
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
                f"{path}, line {number}, is of another training than the model: it has no pathway "
                f"for {language!r}, but for {', '.join(languages)}. Give the folder of the "
                "training that the model is of, or its model by --model"
            )
        found[language].append(values)
    return found


def changes(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The renewals of one language that had a mask before them: a first mask is no change."""
    return lines[1:] if lines and lines[0]["changed"] == 1 else lines
