"""Report what data pruning did in a run, or what the masks of languages share."""

import argparse
import importlib

from asrprune.base.arguments import add_verbs

# what -> (module, one line of help); a module is imported only when it is asked for
_REPORTS = {
    "data": ("asrprune.report.data", "which cuts a run kept, and its hardest cuts"),
    "pathways": ("asrprune.report.pathways.verb", "what the masks of languages share"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the reports to the parser of ``asrprune report``."""
    add_verbs(parser, _REPORTS)


def main(args: argparse.Namespace) -> int | None:
    """Write a report and return the exit status."""
    return importlib.import_module(_REPORTS[args.what][0]).main(args)
