"""Find the columns that give the start and end of an utterance, and read their values.

Usual names of these columns are start, begin, startTime, offset_ms, Start (s), end_time, stop and
dur. If a column of time is overlooked, the other columns are misunderstood. So this module knows
all usual names. The module :mod:`.times` decides what the values mean.
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from asrprune.base.errors import UserError

START, END, DURATION = "start", "end", "duration"
SECONDS, MILLISECONDS, SAMPLES = "seconds", "milliseconds", "samples"
FACTORS = {  # unit -> seconds
    SECONDS: 1.0,
    MILLISECONDS: 1e-3,
    "microseconds": 1e-6,
    "nanoseconds": 1e-9,
    "minutes": 60.0,
}
FRAMES = "frames"  # may mean sample frames or feature frames, so values are refused
_CORES = {
    START: "start begin beginning begins beg bgn onset",
    END: "end ending stop finish",
    DURATION: "duration dur",
    "offset": "offset",
    "length": "length len",
}
_UNITS = {
    SECONDS: "s sec secs second seconds",
    MILLISECONDS: "ms msec msecs milli millis millisec millisecs millisecond milliseconds",
    "microseconds": "us usec usecs microsec microsecs micros microsecond microseconds µs μs",
    "nanoseconds": "ns nsec nanos nanosecond nanoseconds",
    "minutes": "min mins minute minutes",
    SAMPLES: "sample samples smp samp",
    FRAMES: "frame frames index idx",
}
_CORE_OF = {word: core for core, words in _CORES.items() for word in words.split()}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words.split()}
_FILLERS = {
    *("time", "times", "timestamp", "timestamps", "stamp", "ts", "t", "of", "in", "at", "the"),
    *("value", "pos", "position", "point", "segment", "seg", "utterance", "utt", "speech"),
    *("chunk", "turn", "interval", "region", "sentence", "phrase", "caption", "subtitle"),
}
_WHOLE = {  # words for a whole file, whose duration is not that of the utterance
    *("audio", "wav", "file", "clip", "recording", "rec", "sound", "media", "video"),
}
_COUNTS = {"num", "n", "nb", "number", "count"}
# pairs of words that mean a start and an end only if both are there
_PAIRS = (("from", "to"), ("t0", "t1"), ("t1", "t2"), ("tmin", "tmax"), ("xmin", "xmax"))
_GLUED = re.compile(
    rf"(?P<before>t|time|seg|segment|utt)?(?P<core>{'|'.join(sorted(_CORE_OF, key=len)[::-1])})"
    rf"(?P<after>{'|'.join(sorted({*_UNIT_OF, *_FILLERS}, key=len)[::-1])})*"
)
_TOGETHER = {"timestamp", "timestamps", "time", "times", "interval", "segment", "span", "region"}
RATES = ("sampling_rate", "sample_rate", "samplerate", "samplingrate", "sr", "fs")
MEND = (
    "Write times as numbers of seconds in the columns start and end (or duration), or say their "
    "unit in the columns' names, such as start_ms or start_samples. Rename or delete columns that "
    "are no times"
)


@dataclass(frozen=True)
class TimeColumn:
    """A column that gives the start, the end or the duration of an utterance."""

    name: str
    what: str  # START, END or DURATION
    unit: str = ""  # a key of FACTORS, SAMPLES or FRAMES; empty: the name has no unit


@dataclass(frozen=True, slots=True)
class Times:
    """The times of an utterance as its row gives them.

    ``values`` are (column, value, unit). The unit comes from the value, or else from the name of
    the column.
    """

    where: str = ""
    values: tuple[tuple[TimeColumn, float, str], ...] = ()
    rate: float = 0.0  # Hz, for values in samples; 0: the sampling rate of the file
    mend: str = MEND  # what the user can do if the times are wrong


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case: start, time and ms for ``startTime(ms)``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})", " ", name.strip())
    return re.findall(r"[^\W_]+", parted.lower())


@lru_cache(1024)
def find_time_columns(names: tuple[str, ...]) -> tuple[TimeColumn, ...]:
    """Return the columns of time among all columns, the most reliable columns first."""
    known = [(name, *_meaning(words_of(name))) for name in names]
    found = [TimeColumn(name, core, unit) for name, core, unit in known if core in (START, END)]
    if not found:
        found += _pair(names)
    starts = [column for column in found if column.what == START]
    ends = [column for column in found if column.what == END]
    # an offset is a start, as in NeMo's manifests; but with an onset the offset is the end
    onset = any("onset" in "".join(words_of(column.name)) for column in starts)
    offset = END if onset and not ends else START
    found += [TimeColumn(name, offset, unit) for name, core, unit in known if core == "offset"]
    whats = {column.what for column in found}
    durations = [TimeColumn(name, DURATION, unit) for name, core, unit in known if core == DURATION]
    if not durations and START in whats and END not in whats:  # otherwise a length may be of text
        durations = [
            TimeColumn(name, DURATION, unit) for name, core, unit in known if core == "length"
        ]
    found += durations
    sure = {column.what for column in found if column.unit != FRAMES}
    found = [column for column in found if column.unit != FRAMES or column.what not in sure]
    # the order: first names with a unit of time, then names without a unit, then samples or frames
    found.sort(key=lambda column: (column.unit not in FACTORS, bool(column.unit)))
    return tuple(found)


def _meaning(words: list[str]) -> tuple[str, str]:
    """Return the core and the unit in the words of a column name; an empty core if it has none."""
    if len(words) == 1 and words[0] not in _CORE_OF and (glued := _GLUED.fullmatch(words[0])):
        rest = words[0][glued.start("core") + len(glued["core"]) :]
        words = [word for word in (glued["before"], glued["core"], *_parts(rest)) if word]
    cores, units, others = [], [], []
    for word in words:
        if word in _CORE_OF:
            cores.append(_CORE_OF[word])
        elif word in _UNIT_OF:
            units.append(_UNIT_OF[word])
        else:
            others.append(word)
    if not cores and len(units) == 1 and units[0] in (SAMPLES, FRAMES) and set(others) & _COUNTS:
        return ("length", units[0]) if set(others) <= _COUNTS | {"of"} else ("", "")
    if "ss" in others:  # ss.msec, hh:mm:ss.ms
        others, units = [word for word in others if word not in ("hh", "mm", "ss")], [SECONDS]
    allowed = _FILLERS if set(cores) & {DURATION, "length"} else _FILLERS | _WHOLE
    if len(cores) != 1 or len(units) > 1 or not set(others) <= allowed:
        return "", ""
    return cores[0], units[0] if units else ""


def _parts(rest: str) -> list[str]:
    """Return the words that are glued together after a core: time and ms for ``timems``."""
    words = sorted({*_UNIT_OF, *_FILLERS}, key=len)[::-1]
    return re.findall("|".join(words), rest)


def _pair(names: tuple[str, ...]) -> list[TimeColumn]:
    """Return the two columns whose names mean a start and an end only together; else none."""
    words = {name: words_of(name) for name in names}
    for first, last in _PAIRS:
        found = []
        for key, what in ((first, START), (last, END)):
            for name, own in words.items():
                rest = [word for word in own if word != key]
                units = [_UNIT_OF[word] for word in rest if word in _UNIT_OF]
                fillers = {word for word in rest if word not in _UNIT_OF}
                if key in own and len(units) <= 1 and fillers <= _FILLERS | _WHOLE:
                    found.append(TimeColumn(name, what, units[0] if units else ""))
                    break
        if len(found) == 2:
            return found
    return []


def read_times(row: dict[str, Any], where: str) -> Times:
    """Return the times of an utterance from its row.

    Raises:
        UserError: A value is no number, counts frames, or holds a start and an end together. The
            message names the column.
    """
    names = tuple(row)
    for name in _lists(names):
        if _is_span(row[name]):
            raise UserError(
                f"{where}: {row[name]!r} in the column {name!r} seems to say when something is "
                f"said, and only columns with one number each are read. {MEND}"
            )
    values = []
    for column in find_time_columns(names):
        value = row[column.name]
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        number, unit = _number(value, column, where)
        values.append((column, number, unit))
    if not values:
        return Times(where)
    name = _rate_column(names)
    rate = row[name] if name else None
    try:
        return Times(where, tuple(values), max(float(rate or 0.0), 0.0))
    except (TypeError, ValueError):
        return Times(where, tuple(values))


@lru_cache(1024)
def _rate_column(names: tuple[str, ...]) -> str:
    """Return the column of the sampling rate; empty if there is none."""
    return next((name for name in names if "_".join(words_of(name)) in RATES), "")


@lru_cache(1024)
def _lists(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns whose values may hold both a start and an end."""
    found = []
    times = {column.name for column in find_time_columns(names)}
    for name in names:
        words = set(words_of(name))
        if name in times:
            continue
        if words & _TOGETHER or {START, END} <= {_CORE_OF.get(word) for word in words}:
            found.append(name)
    return tuple(found)


def _is_span(value: Any) -> bool:
    """Return whether a value holds a start and an end: a list, an object or ``1.2-3.4``."""
    if isinstance(value, dict):
        return not {START, END}.isdisjoint(_meaning(words_of(str(key)))[0] for key in value)
    if isinstance(value, str):
        number = r"\d+(?:\.\d+)?"
        span = rf"[\[(]?\s*{number}(?:\s*(?:[-–,;]|to)\s*|\s+){number}\s*[\])]?"
        return "." in value and bool(re.fullmatch(span, value.strip()))  # no point: maybe an id
    if not isinstance(value, list) or len(value) != 2:
        return False
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in value)


def _number(value: Any, column: TimeColumn, where: str) -> tuple[float, str]:
    """Return a number and its unit. Values such as ``1.5 s`` and ``0:01:02.5`` have a unit."""
    unit = column.unit
    number = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str):
        text = value.strip()
        if clock := re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d(?:[.,]\d*)?)", text):
            hours, minutes, seconds = (float(part.replace(",", ".")) for part in clock.groups())
            return 3600 * hours + 60 * minutes + seconds, SECONDS
        found = re.fullmatch(r"(\S*?\d\.?)\s*([^\W\d_]+)", text)
        if found and found[2].lower() in _UNIT_OF:
            text, unit = found[1], _UNIT_OF[found[2].lower()]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {value!r} in the column {column.name!r} is no number. {MEND}")
    if unit == FRAMES:
        raise UserError(
            f"{where}: {value!r} in the column {column.name!r} counts frames, and nobody knows how "
            f"long these are. {MEND}"
        )
    return number, unit
