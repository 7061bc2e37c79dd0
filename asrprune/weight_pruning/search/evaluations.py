"""Log evaluated sub-networks, so that a search that was killed can go on.

The first line of the file says what the evaluations belong to. Each other line holds one
evaluation. A search replays itself from its beginning, and finds in the log what it has evaluated
before. So it ends as if nothing had happened. The search may also have other options, other budgets
or more generations.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from asrprune.base.errors import UserError
from asrprune.base.files import explain_failed_write, flush_to_disk
from asrprune.base.locks import open_locked

log = logging.getLogger(__name__)

Fitness = Callable[[dict[str, float]], float]  # layers' sparsities -> fitness, lower is better
_FORMAT = "asrprune evaluations 1"


class EvaluationLog:
    """A fitness that remembers its values, in a file if there is one. A context manager.

    A fitness that is not finite counts as infinity, the worst: a sub-network that computes NaN is
    of no use.

    Args:
        path: the file, made if it does not exist. None: memory alone.
        layers: names of the layers.
        fitness: takes a dictionary of layer names and sparsities.
        identity: plain values of what the fitness depends on, such as digests of the model and of
            the data. They must equal the file's.

    Raises:
        UserError: the file holds something else, is damaged, or is in use.
    """

    def __init__(
        self,
        path: str | Path | None,
        layers: Sequence[str],
        fitness: Fitness,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.layers = list(layers)
        self._fitness = fitness
        self._known: dict[tuple[float, ...], tuple[float, float]] = {}
        self._log: _LogFile | None = None
        if path is not None:
            header = {"format": _FORMAT, "layers": self.layers, "identity": dict(identity or {})}
            file = open_locked(
                path,
                f"{path} is in use by another search: wait for it, or name another file",
            )
            self._log = _LogFile(Path(path), file)
            try:
                self._read_file(self._log, json.loads(json.dumps(header)))
            except BaseException:
                file.close()
                raise

    def __enter__(self) -> "EvaluationLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._log is not None:
            self._log.file.close()

    def evaluate(self, sparsities: Sequence[float]) -> tuple[float, float]:
        """Return the fitness of sparsities, in the order of the layers, and the seconds it took.

        Known values are not computed again. New values are on the disk before this returns.
        """
        key = tuple(float(sparsity) for sparsity in sparsities)
        if key not in self._known:
            choice = dict(zip(self.layers, key, strict=True))
            start = time.monotonic()
            value = float(self._fitness(choice))
            seconds = round(time.monotonic() - start, 3)
            if not math.isfinite(value):
                log.warning("a sub-network has fitness %s and counts as the worst", value)
                value = math.inf
            if self._log is not None:
                known = value if math.isfinite(value) else None  # JSON has no infinity
                self._log.append(_line({"fitness": known, "seconds": seconds, "sparsity": key}))
            self._known[key] = value, seconds
        return self._known[key]

    def _read_file(self, log_file: "_LogFile", header: dict[str, Any]) -> None:
        """Remember what the file holds. Cut off a last line without its end, from a killed run."""
        first = _line(header)
        path, file = log_file
        file.seek(0)
        content = file.read()
        whole, newline, rest = content.rpartition(b"\n")
        if not newline:
            # never cut a file that may be something else
            if not first.startswith(rest):
                raise UserError(f"{path} is no log of evaluations; name another file")
            file.truncate(0)
            log_file.append(first)
            flush_to_disk(path.parent)
            return
        lines = whole.split(b"\n")
        self._check_header(path, lines[0], header)
        for number, line in enumerate(lines[1:], 2):
            try:
                entry = json.loads(line)
                key, known = tuple(map(float, entry["sparsity"])), entry["fitness"]
                if len(key) != len(self.layers):
                    raise ValueError(f"{len(key)} sparsities for {len(self.layers)} layers")
                value = math.inf if known is None else float(known)
                self._known[key] = value, float(entry["seconds"])
            except (ValueError, TypeError, KeyError) as error:
                raise UserError(
                    f"{path}:{number} is damaged ({error}); delete this line, it is then "
                    "evaluated again"
                ) from error
        file.truncate(len(content) - len(rest))

    def _check_header(self, path: Path, line: bytes, header: dict[str, Any]) -> None:
        try:
            found = json.loads(line)
            if found["format"] != _FORMAT:
                raise ValueError
            theirs = {"layers": found["layers"], **found["identity"]}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is no log of evaluations; name another file") from error
        ours = {"layers": header["layers"], **header["identity"]}
        for name in [*ours, *theirs]:
            if ours.get(name) != theirs.get(name):
                what = f"{name}={theirs.get(name)}, not {name}={ours.get(name)}"
                if name == "layers":
                    what = f"{len(found['layers'])} layers that are not these {len(self.layers)}"
                raise UserError(
                    f"{path} holds evaluations of {what}: name another file, or delete this"
                )


class _LogFile(NamedTuple):
    """The open file of a log."""

    path: Path
    file: BinaryIO

    def append(self, line: bytes) -> None:
        """Write a whole line to the disk, or nothing of it."""
        end = os.fstat(self.file.fileno()).st_size
        with explain_failed_write(self.path):
            try:
                written = 0
                while written < len(line):
                    written += self.file.write(line[written:])
                os.fsync(self.file.fileno())
            except OSError:
                self.file.truncate(end)
                raise


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode() + b"\n"
