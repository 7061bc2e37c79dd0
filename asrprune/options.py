"""How option dataclasses declare a field: default, limits, and what a change on resume means.

Standard library only: a dry run loads every config without torch.
"""

from dataclasses import MISSING, field
from typing import Any

IDENTITY = "identity"  # part of what is trained: a change on resume is refused
RESUMABLE = "resumable"  # may change at any time without changing the result's meaning
REBATCH = "rebatch"  # may change, but the batches are then others: the epoch starts again


def option(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    change: str = IDENTITY,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """A dataclass field with limits that :func:`asrprune.config.check` enforces."""
    metadata = {"change": change, "choices": choices, "minimum": minimum, "maximum": maximum}
    return field(default=default, default_factory=factory, metadata=metadata)
