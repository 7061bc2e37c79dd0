"""How option dataclasses declare a field: default, limits, and what a change on resume means.

Standard library only: a dry run loads every config without torch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from asrprune.base.errors import UserError, nearest

IDENTITY = "identity"  # part of what is trained: a change on resume is refused
RESUMABLE = "resumable"  # may change at any time without changing the result's meaning
REBATCH = "rebatch"  # may change, but the batches are then others: the epoch starts again


def option(
    default: Any = dataclasses.MISSING,
    *,
    factory: Any = dataclasses.MISSING,
    change: str = IDENTITY,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with limits that :func:`check` enforces."""
    metadata = {"change": change, "choices": choices, "minimum": minimum, "maximum": maximum}
    return dataclasses.field(default=default, default_factory=factory, metadata=metadata)


def flatten(options: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yield ``(dotted key, value, field)`` of every option, those of nested dataclasses too."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            yield from flatten(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, field


def check(options: Any, prefix: str = "") -> None:
    """Hold every option against the limits that its field declares.

    Those of dataclasses in lists and dicts, too. Then what a dataclass says of its options
    together: its method ``check(prefix)``, where it has one. ``prefix`` stands before the names in
    messages, as in ``loss.``.

    Raises:
        UserError: the first option out of its limits.
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
    """The dataclasses that a value is or holds in a list or dict, with the names of where."""
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
    # said so that NaN does not pass
    if not (minimum is None or value >= minimum) or not (maximum is None or value <= maximum):
        span = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise UserError(f"{key}={value}: must be {span}")
