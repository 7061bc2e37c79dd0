"""Command-line arguments as every verb takes them."""

import argparse
import importlib
import sys
from collections.abc import Mapping
from typing import NoReturn

from asrprune.base.errors import nearest


class Parser(argparse.ArgumentParser):
    """An argument parser that takes ``--a_b`` for ``--a-b`` and names the nearest known option."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_args(self, args=None, namespace=None):
        given = [_dashes(word) for word in (sys.argv[1:] if args is None else args)]
        # options may stand before, between and after the key=value words; argparse cannot do this
        # for a verb that has verbs of its own
        parse = self.parse_known_args if self._subparsers else self.parse_known_intermixed_args
        parsed, unknown = parse(given, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            self.error(f"unknown option {option}{nearest(option, self._option_string_actions)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists every option\n")


class _LazyParser(Parser):
    """A parser that imports its module and takes its options when it has something to parse."""

    def __init__(self, *args, module: str, **kwargs):
        super().__init__(*args, **kwargs)
        self._module: str | None = module

    def parse_known_args(self, args=None, namespace=None):
        if self._module:
            module = importlib.import_module(self._module)
            self._module = None
            self.description = module.__doc__
            module.add_arguments(self)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            self.error(f"unknown option {option}{nearest(option, self._option_string_actions)}")
        return parsed, unknown


def add_verbs(parser: argparse.ArgumentParser, verbs: Mapping[str, tuple[str, str]]) -> None:
    """Give a verb verbs of its own. The parsed arguments have the chosen one as ``what``.

    Args:
        parser: the parser of the verb.
        verbs: name -> its module, which is imported only if the name is given; and a line of help.
    """
    choices = parser.add_subparsers(
        dest="what", metavar="|".join(verbs), required=True, parser_class=_LazyParser
    )
    for what, (module, text) in verbs.items():
        choices.add_parser(what, module=module, help=text)


def _dashes(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def true_or_false(text: str) -> bool:
    """The type of a boolean option, as in ``--speed-perturb true``."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def share(text: str) -> float:
    """The type of an option between 0 and 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
