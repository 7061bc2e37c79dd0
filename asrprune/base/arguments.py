"""Parse the command-line arguments of every verb."""

import argparse
import importlib
import sys
from collections.abc import Mapping
from typing import NoReturn

from asrprune.base.errors import nearest


class Parser(argparse.ArgumentParser):
    """Parse ``--a_b`` as ``--a-b``, and suggest the nearest known option for an unknown option."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(*args, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """Parse arguments, and exit with a message if an option is unknown.

        Args:
            args: the arguments; None: those of the command line.
            namespace: an object to store the values in; None: a new one.

        Returns:
            The parsed values.
        """
        given = [_dashes(word) for word in (sys.argv[1:] if args is None else args)]
        # Options may stand before, between and after the overrides (key=value). argparse does not
        # support this order for a verb with sub-verbs.
        parse = self.parse_known_args if self._subparsers else self.parse_known_intermixed_args
        parsed, unknown = parse(given, namespace)
        if unknown:
            option = unknown[0].split("=")[0]
            self.error(f"unknown option {option}{nearest(option, self._option_string_actions)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Print one message and exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists every option\n")


class _LazyParser(Parser):
    """Import a module and add its options only when there are arguments to parse."""

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
    """Add sub-verbs to the parser of a verb. The parsed arguments name the chosen one in ``what``.

    Args:
        parser: the parser of the verb.
        verbs: for each name, the path of its module and a line of help. A module is imported only
            if its name is given.
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
    """Return the value of a boolean option, as in ``--speed-perturb true``."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def share(text: str) -> float:
    """Return the value of an option between 0 and 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
