"""Options that all comparisons of trainings share: data, methods, and where results go."""

import re
import shlex
from dataclasses import dataclass
from typing import Any

from asrprune.base.errors import UserError, nearest
from asrprune.base.options import option
from asrprune.decoding.options import METHODS

DATA_PRUNING, TIME_TO_WER = "data_pruning", "time_to_wer"
WEIGHT_PRUNING, PATHWAYS = "weight_pruning", "pathways"
KINDS = (DATA_PRUNING, TIME_TO_WER, WEIGHT_PRUNING, PATHWAYS)


@dataclass
class GridOptions:
    """A part of the grid: each of these trainings with each of these seeds.

    Trainings that these trainings need are added.
    """

    methods: list[str] = option(factory=list)
    seeds: list[int] = option(factory=list)


@dataclass
class StudyOptions:
    """Options of a comparison. Paths are relative to the current folder, which is the recipe's."""

    kind: str = option(DATA_PRUNING, choices=KINDS)
    title: str = "Comparison"
    # Command lines that make the data. Each call of the comparison runs them before its first
    # training, so they have to be quick where the data exists.
    prepare: list[str] = option(factory=list)
    config: str = ""  # the configuration file of all trainings
    overrides: list[str] = option(factory=list)  # key=value changes of it, for all trainings
    manifest_dir: str = ""  # validated cuts (stage 3)
    lang_dir: str = ""  # the tokenizer (stage 4)
    test_sets: list[str] = option(factory=list)
    exp_dir: str = ""  # holds one folder for each training
    results: str = "results/compare.json"
    report: str = "RESULTS.md"  # the tables are written into this file, between two marks
    methods: dict[str, list[str]] = option(factory=dict)  # name -> key=value overrides
    grid: list[Any] = option(factory=list)
    claims: list[Any] = option(factory=list)
    avg: int = option(1, minimum=1)  # number of epochs to average
    decoding_method: str = "greedy_search"
    threads: int = option(1, minimum=1)  # CPU threads of each training
    margin: float = option(0.05, minimum=0, maximum=1)  # share of a WER; less is no difference
    synthetic: bool = False  # whether the speech is synthetic; tables and plots then say so

    def check(self, prefix: str) -> None:
        """Check the options that all types of comparison share.

        Args:
            prefix: the text before an option's name in messages; empty for these options.

        Raises:
            UserError: a required option is not set; a method's name does not begin with a letter,
                or has other characters than letters, digits and ``_``; the decoding method is
                unknown; or a command of ``prepare`` cannot be read.
        """
        for name in ("config", "manifest_dir", "lang_dir", "test_sets", "exp_dir", "grid"):
            if not getattr(self, name):
                raise UserError(f"{prefix}{name} is not set")
        for name in self.methods:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise UserError(
                    f"{prefix}methods: {name!r} is not a valid name. Use letters, digits and _, "
                    "and begin with a letter."
                )
        if self.decoding_method not in METHODS:
            raise UserError(
                f"{prefix}decoding_method={self.decoding_method}: choose one of "
                f"{', '.join(METHODS)}{nearest(self.decoding_method, METHODS)}"
            )
        for line in self.prepare:
            command_words(line, f"{prefix}prepare")


def command_words(line: str, key: str = "prepare") -> list[str]:
    """Split a command line into its arguments, without a shell.

    Args:
        line: the command line.
        key: the option that holds the command line, for messages.

    Raises:
        UserError: the line is empty, or a quote is not closed.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"{key}: {line!r}: {error}") from error
    if not words:
        raise UserError(f"{key}: a command line is empty")
    return words


def check_name(where: str, name: str, known: list[str]) -> None:
    """Check that a method is known.

    Args:
        where: the option that names the method, for the message.
        name: of the method.
        known: the names of the known methods.

    Raises:
        UserError: the method is unknown; the message suggests the nearest name.
    """
    if name not in known:
        raise UserError(f"{where}: unknown method {name!r}{nearest(name, known)}")
