"""Turn a recipe's own function that yields utterances into a script that imports a corpus.

``local/prepare.py`` of a recipe consists of this function and a call of :func:`run`.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from asrprune.base.arguments import Parser
from asrprune.base.errors import UserError
from asrprune.base.scripts import run_script
from asrprune.data.importers.split import write_utterances
from asrprune.data.importers.utterance import Utterance, find_columns, utterance_of
from asrprune.data.importers.verb import add_common_arguments, options_of, paths_of

CUT = "give it start and end (or duration), a row for each utterance"

Row = dict[str, Any]
Utterances = Callable[[Path, str], Iterable[Row]]  # (folder of the corpus, split)


def run(utterances: Utterances) -> None:
    """Write the manifests of splits as the command line says, and end the process.

    Args:
        utterances: Gets the folder of the corpus and the split. Yields a row for each utterance.
            Each row has ``path`` and ``text``. If known, a row also has ``id``, ``speaker``,
            ``language``, ``channel``, ``start``, and ``end`` or ``duration`` (seconds). Relative
            paths are relative to the folder, or to ``--audio-dir`` if given. A row may have a
            reason (one word) in ``left_out``. Then the utterance is not written, but counted and
            listed with this reason.
    """
    name = Path(sys.argv[0]).name
    parser = Parser(description=sys.modules["__main__"].__doc__)
    add_common_arguments(parser)
    sys.exit(run_script(name, lambda: _write(utterances, parser.parse_args(), name)))


def _write(utterances: Utterances, args: argparse.Namespace, name: str) -> None:
    options = options_of(args)
    for split, folder in paths_of(args.splits).items():
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist; it should hold the corpus, or be a link")
        rows = utterances(folder, split)
        base = folder if options.audio_dir is None else options.audio_dir
        write_utterances(options, split, numbered(rows, base, f"{name}: {split}"), CUT)


def numbered(rows: Iterable[Row], base: Path, where: str) -> Iterator[Utterance]:
    """Yield the utterances of rows. Messages number the rows from 1."""
    for number, row in enumerate(rows, 1):
        place = f"{where}, row {number}"
        utterance = utterance_of(row, find_columns(list(row), place), base, place)
        yield replace(utterance, left_out=row.get("left_out") or "")
