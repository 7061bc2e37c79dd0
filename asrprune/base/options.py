"""Declare the options of a dataclass: default, limits, and whether they may change on resume.

Only the standard library is used, so that a dry run loads every configuration without torch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from asrprune.base.errors import UserError, nearest

IDENTITY = "identity"  # defines the trained model: a change on resume is refused
RESUMABLE = "resumable"  # may change at any time: the result keeps its meaning
REBATCH = "rebatch"  # may change, but changes the batches: the epoch starts again


def option(
    default: Any = dataclasses.MISSING,
    *,
    factory: Any = dataclasses.MISSING,
    change: str = IDENTITY,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Return a dataclass field with limits that :func:`check` enforces.

    Args:
        default: the default value.
        factory: a function that makes the default value.
        change: what happens on resume if the value has changed: IDENTITY, RESUMABLE or REBATCH.
        choices: the allowed values; empty: all.
        minimum: the least value; None: no limit.
        maximum: the greatest value; None: no limit.
    """
    metadata = {"change": change, "choices": choices, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def flatten(options: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yield ``(dotted key, value, field)`` for every option, also in nested dataclasses."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def check(options: Any, prefix: str = "") -> None:
    """Check every option against the limits of its field.

    Dataclasses in lists and dicts are checked too. If a dataclass has a method ``check(prefix)``,
    this method then checks the options together.

    Args:
        options: the dataclass.
        prefix: the text before option names in messages, such as ``loss.``.

    Raises:
        UserError: an option is out of its limits. The message names the first.
    """
    for field in dataclasses.fields(options):
        key, value = f"{prefix}{field.name}", getattr(options, field.name)
        if not dataclasses.is_dataclass(value):
            _check_limits(key, value, **field.metadata)
        for where, part in _sections(key, value):
            check(part, f"{where}.")
    if hasattr(options, "check"):
        options.check(prefix)


def _sections(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the dataclasses in a value with their keys: itself, or the items of a list or dict."""
    if dataclasses.is_dataclass(value):
        yield key, value
    elif isinstance(value, list):
        yield from ((key, part) for part in value if dataclasses.is_dataclass(part))
    elif isinstance(value, dict):
        parts = ((f"{key}.{name}", part) for name, part in value.items())
        yield from (item for item in parts if dataclasses.is_dataclass(item[1]))


def _check_limits(
    key: str,
    value: Any,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    **_: Any,
) -> None:
    if choices and value not in choices:
        raise UserError(
            f"{key}={value}: choose one of {', '.join(choices)}{nearest(str(value), choices)}"
        )
    # "not (value >= minimum)" rejects NaN, "value < minimum" would not
    if not (minimum is None or value >= minimum) or not (maximum is None or value <= maximum):
        span = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise UserError(f"{key}={value}: must be {span}")
