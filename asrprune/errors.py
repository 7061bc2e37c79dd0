"""Errors whose message is meant for the user: what is wrong, where, and the way out."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input or a bad environment. The command line prints the message without a traceback."""


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for a misspelt name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
