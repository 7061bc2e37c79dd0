"""Decide the unit of a split's times, and where its utterances begin and end.

If neither the name of a column nor a value gives a unit, times are in seconds. Another unit is used
if seconds lie far beyond the files or two columns disagree, and if one other unit alone fits all
times and gives whole files or a usual rate of speech.
"""

import logging
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from asrprune.base.errors import UserError
from asrprune.data.importers.time_columns import (
    DURATION,
    END,
    FACTORS,
    MILLISECONDS,
    SAMPLES,
    SECONDS,
    START,
    TimeColumn,
    Times,
)
from asrprune.data.importers.utterance import Utterance

BEYOND = 0.5  # seconds that an utterance may end after its file
DISAGREE = 0.05  # seconds by which two columns of the same time may differ
FAR = 50  # a time that exceeds this many lengths of its file is hardly in seconds
SHORTEST = 0.02  # seconds of an utterance; if one is shorter, the unit is wrong
RATE = (1.0, 30.0)  # usual median of a split, in characters per second, spaces included
# candidates for (unit of starts and ends, unit of durations), if no name gives a unit
UNITS = (
    (SECONDS, SECONDS),
    (MILLISECONDS, MILLISECONDS),
    (SAMPLES, SAMPLES),
    (MILLISECONDS, SECONDS),
    (SAMPLES, SECONDS),
)

# column names of the guide, and of Kaldi's segments
USUAL = ("start", "offset", "duration", "start of the segment", "end of the segment")

log = logging.getLogger(__name__)


class Header(Protocol):
    """The header of a file. ``rate`` is 0 if the header is unknown."""

    rate: int
    frames: int


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a file that holds an utterance, in seconds, and what is wrong with the times."""

    start: float
    duration: float | None  # None: to the end of the file
    length: float  # of the file; 0: unknown
    disagreement: str = ""  # of two columns; empty: they agree

    @property
    def end(self) -> float:
        """The end in seconds; the end of the file if there is no duration."""
        return self.length if self.duration is None else self.start + self.duration

    @property
    def beyond(self) -> bool:
        """Whether the part begins or ends beyond the end of the file."""
        return self.length > 0 and (self.start >= self.length or self.end > self.length + BEYOND)


def resolve(
    utterances: Sequence[Utterance], audio: Mapping[str, Any], split: str
) -> list[Utterance]:
    """Return the utterances with their starts and durations in seconds.

    Args:
        utterances: The utterances of a split, with the times of its table.
        audio: Path -> header of the file (``rate``, ``frames``).
        split: The name of the split, for the log.

    Raises:
        UserError: Columns disagree, a time is negative, or the unit is unclear. The message names
            the column, the row and the value.
    """
    columns = {column for u in utterances for column, _, _ in u.times.values}
    if not columns:
        return [_finished(utterance, 0.0, None) for utterance in utterances]
    headers = [audio.get(utterance.path) for utterance in utterances]
    units, parts = _choose(utterances, headers)
    for utterance, part in zip(utterances, parts, strict=True):
        if not utterance.left_out:
            _check(utterance, part)
    _say(split, columns, units)
    return [
        _finished(utterance, part.start, part.duration)
        for utterance, part in zip(utterances, parts, strict=True)
    ]


def _finished(utterance: Utterance, start: float, duration: float | None) -> Utterance:
    if start and not utterance.named:
        ident = f"{utterance.id}-{round(1000 * start):08d}"
        return replace(utterance, id=ident, start=start, duration=duration)
    return replace(utterance, start=start, duration=duration)


Units = tuple[str, str]


def _choose(
    utterances: Sequence[Utterance], headers: Sequence[Header | None]
) -> tuple[Units, list[Part]]:
    """Return the units for times without a unit, and the parts that follow from these units.

    If several units fit, a unit that makes all parts whole files is preferred.
    """
    parts = _parts(utterances, headers, UNITS[0])
    unsaid = [not all(unit for _, _, unit in u.times.values) for u in utterances]
    judged = [
        index
        for index, part in enumerate(parts)
        if unsaid[index] and part.length and not utterances[index].left_out
    ]
    if not judged:
        return UNITS[0], parts
    beyond = [index for index in judged if parts[index].beyond]
    far = [i for i in beyond if max(parts[i].start, parts[i].end) > FAR * parts[i].length]
    disagree = any(parts[index].disagreement for index in judged)
    no_seconds = bool(far) and 2 * len(beyond) >= len(judged)
    if not no_seconds and not disagree:
        return UNITS[0], parts
    fitting = {}
    for units in UNITS[1:]:
        others = _parts(utterances, headers, units)
        if others not in [known for known, _ in fitting.values()]:
            chosen = [others[index] for index in judged]
            if kind := _fit(chosen, [utterances[index] for index in judged], units):
                fitting[units] = (others, kind)
    whole = [units for units, (_, kind) in fitting.items() if kind == "whole"]
    found = whole if len(whole) == 1 else list(fitting)
    if len(found) == 1:
        return found[0], fitting[found[0]][0]
    if no_seconds:
        raise _unknown_unit(utterances[far[0]], parts[far[0]], found)
    return UNITS[0], parts


def _parts(
    utterances: Sequence[Utterance], headers: Sequence[Header | None], units: Units
) -> list[Part]:
    return [_part(u.times, header, units) for u, header in zip(utterances, headers, strict=True)]


def _part(times: Times, header: Header | None, units: Units) -> Part:
    rate = header.rate if header else 0
    length = header.frames / rate if header and rate else 0.0
    found: dict[str, tuple[float, TimeColumn]] = {}
    disagreement = ""
    for column, value, said in times.values:
        unit = said or units[column.what == DURATION]
        per_second = times.rate or rate
        if unit == SAMPLES and not per_second:
            continue  # the file is missing, which another check reports
        seconds = value / per_second if unit == SAMPLES else value * FACTORS[unit]
        first = found.setdefault(column.what, (seconds, column))
        if abs(first[0] - seconds) > DISAGREE and not disagreement:
            disagreement = (
                f"the columns {first[1].name!r} and {column.name!r} say {first[0]:g} s and "
                f"{seconds:g} s"
            )
    start = found[START][0] if START in found else 0.0
    if END not in found:
        return Part(start, found[DURATION][0] if DURATION in found else None, length, disagreement)
    duration = found[END][0] - start
    if DURATION in found and not disagreement:
        said, column = found[DURATION]
        # the duration may also be that of the whole file
        if abs(said - duration) > DISAGREE and abs(said - length) > DISAGREE:
            disagreement = (
                f"the column {found[END][1].name!r} says that {duration:g} s are spoken, and the "
                f"column {column.name!r} says {said:g} s"
            )
    return Part(start, duration, length, disagreement)


def _fit(parts: list[Part], utterances: list[Utterance], units: Units) -> str:
    """Return how well units fit: "whole" (parts are whole files), "usual" (speech rate) or ""."""
    if any(part.beyond or part.disagreement for part in parts):
        return ""
    if any(part.start < 0 or part.end - part.start < SHORTEST for part in parts):
        return ""
    if SAMPLES in units and not all(_whole_numbers(utterance.times) for utterance in utterances):
        return ""
    said = [part for part in parts if part.duration is not None]
    if said and all(not p.start and abs(p.end - p.length) <= 0.02 * p.length for p in said):
        return "whole"
    rates = [
        len(utterance.text) / (part.end - part.start)
        for part, utterance in zip(parts, utterances, strict=True)
        if utterance.text
    ]
    return "usual" if rates and RATE[0] <= statistics.median(rates) <= RATE[1] else ""


def _whole_numbers(times: Times) -> bool:
    return all(value == int(value) for column, value, unit in times.values if not unit)


def _unknown_unit(utterance: Utterance, part: Part, found: list[Units]) -> UserError:
    """Return the error about times that are not in seconds."""
    column, value = max(
        ((c, v) for c, v, unit in utterance.times.values if not unit), key=lambda pair: pair[1]
    )
    if found:
        several = " and ".join(dict.fromkeys(f"{units[0]}" for units in found))
        why = f"{several} would both fit"
    else:
        why = "milliseconds and samples do not fit all rows either"
    return UserError(
        f"{utterance.times.where}: {value:g} in the column {column.name!r} is no time in seconds "
        f"of {utterance.path}, which has {part.length:.3f} s, and {why}. {utterance.times.mend}"
    )


def _check(utterance: Utterance, part: Part) -> None:
    """Check that the times of an utterance make a part of a file.

    Raises:
        UserError: Columns disagree, the start is negative, or the duration is not positive.
    """
    times = utterance.times
    if part.disagreement:
        problem = part.disagreement
    elif part.start < 0:
        problem = f"{part.start:g} s is no start of an utterance"
    elif part.duration is None or part.duration > 0:
        return
    elif any(column.what == END for column, _, _ in times.values):
        problem = f"from {part.start:g} s to {part.end:g} s is nothing"
    else:
        problem = f"{part.duration:g} s is no duration of an utterance"
    said = ", ".join(f"{column.name} = {value:g}" for column, value, _ in times.values)
    raise UserError(f"{times.where}: {problem} ({said}). {times.mend}")


def _say(split: str, columns: set[TimeColumn], units: Units) -> None:
    """Log how columns of time were read, unless their names and unit are those of the guide."""
    read = []
    for column in sorted(columns, key=lambda column: (column.what == DURATION, column.name)):
        unit = column.unit or units[column.what == DURATION]
        if column.name not in USUAL or unit != SECONDS:
            read.append(f"{column.name!r} as the {column.what} in {unit}")
    if not read:
        return
    guessed = units != UNITS[0]
    log.log(
        logging.WARNING if guessed else logging.INFO,
        "%s: read %s%s",
        split,
        ", ".join(read),
        "; no other unit fits the files and the texts" if guessed else "",
    )
