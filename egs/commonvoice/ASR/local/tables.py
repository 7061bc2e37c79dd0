"""CommonVoice's tables as they are: tab separated, and quotation marks are characters like others.

Releases differ in their columns. Only three are needed here: ``client_id``, ``path``, ``sentence``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from asrprune.base.encodings import text_lines
from asrprune.base.errors import UserError

NEEDED = ("client_id", "path", "sentence")
# what the manifests keep of the others, and older names of columns
KEPT = ("age", "accents", "variant", "sentence_domain", "sentence_id", "segment")
OLD_NAMES = {"accent": "accents"}


@dataclass(frozen=True)
class Utterance:
    """A line of a table."""

    line: int  # from 1, the head included
    clip: str  # name of the file in clips/
    sentence: str
    speaker: str
    gender: str = ""
    details: dict[str, str] = field(default_factory=dict)  # of KEPT, what is not empty

    @property
    def name(self) -> str:
        """The clip's name without its suffix: the id within the language."""
        path = PurePath(self.clip)
        return "-".join((*path.parent.parts, path.stem))


def check_table(path: Path) -> int:
    """See that all lines of a table are as they should be; returns how many there are.

    Raises:
        UserError: as of `read_table`, with the number of such lines; or a clip is in two lines, or
            two clips would get one id.
    """
    bad: list[str] = []
    known: dict[str, tuple[int, str]] = {}  # name -> its first line, and the clip there
    count = 0
    for utterance in read_table(path, bad):
        count += 1
        first, clip = known.setdefault(utterance.name, (utterance.line, utterance.clip))
        if first == utterance.line:
            continue
        where = f"{path}, line {utterance.line}: {utterance.clip}"
        if clip == utterance.clip:
            bad.append(f"{where} is the clip of line {first} too: delete one of them")
        else:
            bad.append(
                f"{where} and {clip} of line {first} are two clips, whose id would be one: rename "
                "one of them, here and in clips/"
            )
    if bad:
        more = f" ({len(bad)} lines of the table are not in order)" if len(bad) > 1 else ""
        raise UserError(bad[0] + more)
    return count


def read_table(path: Path, bad: list[str] | None = None) -> Iterator[Utterance]:
    """The utterances of a table, line by line.

    Args:
        bad: gets what is wrong with lines, which are then left out; None: the first is an error.

    Raises:
        UserError: it is missing, no UTF-8, lacks a column, or a line has another number of fields
            than the head, or no clip or speaker.
    """
    try:
        lines = text_lines(path)
        columns = _fields(next(lines, ""))
        _check_columns(path, columns)
        for number, line in enumerate(lines, 2):
            if not line.strip():
                continue
            try:
                utterance = _utterance(path, number, columns, _fields(line))
            except UserError as error:
                if bad is None:
                    raise
                bad.append(str(error))
                continue
            yield utterance
    except FileNotFoundError as error:
        raise UserError(
            f"{path} does not exist: unpack the language again, or choose other tables with "
            "--train-splits, --dev-splits and --test-splits"
        ) from error


def _fields(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


def _check_columns(path: Path, columns: list[str]) -> None:
    if columns == [""]:
        raise UserError(f"{path} is empty: unpack the language again")
    for name in NEEDED:
        if name not in columns:
            raise UserError(
                f"{path}, line 1: there is no column {name!r}; there are: {', '.join(columns)}. "
                "It is no table of clips, or was changed: unpack the language again"
            )


def _utterance(path: Path, number: int, columns: list[str], fields: list[str]) -> Utterance:
    if len(fields) != len(columns):
        raise UserError(
            f"{path}, line {number}: {len(fields)} fields, where the first line has "
            f"{len(columns)}: mend the line or delete it"
        )
    row = dict(zip(columns, fields, strict=True))
    for old, new in OLD_NAMES.items():
        row.setdefault(new, row.get(old, ""))
    clip = row["path"].strip()
    for name in ("client_id", "path"):
        if not row[name].strip():
            raise UserError(
                f"{path}, line {number}: nothing in the column {name!r}: mend the line or delete it"
            )
    return Utterance(
        line=number,
        clip=clip if "." in clip else f"{clip}.mp3",  # the first releases left it out
        sentence=row["sentence"],
        speaker=row["client_id"].strip(),
        gender=row.get("gender", ""),
        details={name: row[name] for name in KEPT if row.get(name)},
    )
