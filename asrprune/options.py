"""How option dataclasses declare a field: default, limits, and what a change on resume means.

Standard library only: a dry run loads every config without torch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from asrprune.errors import UserError, nearest

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

    Then what a dataclass says of its options together: its method ``check(prefix)``, where it has
    one. ``prefix`` stands before the names in messages, as in ``loss.``.

    :raises UserError: the first option out of its limits.
    """
    for field in dataclasses.fields(options):
        key, value = f"{prefix}{field.name}", getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check(value, f"{key}.")
        else:
            _check_limits(key, value, **field.metadata)
    if hasattr(options, "check"):
        options.check(prefix)


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
