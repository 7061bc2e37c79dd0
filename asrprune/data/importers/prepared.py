"""Import the output of ``lhotse prepare``: recordings and supervisions of each part of a corpus."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from asrprune.base.errors import UserError, nearest
from asrprune.data.importers.split import Entry
from asrprune.data.importers.utterance import id_of
from asrprune.data.manifests import parse_line, read_lines
from asrprune.data.sources import read_recordings

CUT = "its supervisions should"
MADE_BY = "lhotse prepare"
SHOWN = 30  # maximum number of parts in a message
# most names are <corpus>_recordings_<part>; some are <part>_recordings or recordings_<part>
_NAME = re.compile(r"(?P<before>.*?)_?recordings_?(?P<after>.*)\.jsonl\.gz", re.DOTALL)


def read_prepared(folder: Path, part: str) -> Iterator[Entry]:
    """Yield the entries of a part.

    Raises:
        UserError: The part is missing, or several parts fit (the message lists all parts); two
            recordings of different audio share an id; or the recording of a supervision is missing.
    """
    of_recordings = choose(find_parts(folder), part, folder)
    of_supervisions = supervisions_of(of_recordings)
    recordings = read_recordings(of_recordings, MADE_BY)
    for number, line in enumerate(read_lines(of_supervisions, MADE_BY), 1):
        where = f"{of_supervisions}, line {number}"
        supervision = parse_line(line, of_supervisions, number)
        line_of_recording = recordings.get(str(supervision.get("recording_id")))
        if line_of_recording is None:
            raise UserError(
                f"{where}: the recording {supervision.get('recording_id')!r} of "
                f"{supervision['id']} is not in {of_recordings}"
            )
        recording = json.loads(line_of_recording)
        yield Entry(where, id_of(supervision["id"], where), recording, supervision)


def find_parts(folder: Path) -> list[tuple[str, str, Path]]:
    """Return (full name, part, manifest of recordings) of each part with supervisions, sorted.

    ``ami-ihm_recordings_train`` is the part ``train``, and its full name is ``ami-ihm_train``.

    Raises:
        UserError: There are no parts.
    """
    found = []
    files = sorted(path for path in folder.rglob("[!.]*") if path.is_file())
    for path in files:
        name = _NAME.fullmatch(path.name)
        if name and supervisions_of(path).exists():
            before, after = name["before"], name["after"]
            full = "_".join(word for word in (before, after) if word)
            found.append((full, after or before, path))
    if not found:
        others = [path.name for path in files[:SHOWN]]
        raise UserError(
            f"{folder} holds no manifests of recordings with supervisions, such as "
            f"<corpus>_recordings_<part>.jsonl.gz; there is: {', '.join(others) or 'nothing'}"
        )
    return found


def supervisions_of(recordings: Path) -> Path:
    """Return the path of the manifest of supervisions beside a manifest of recordings."""
    return recordings.with_name(recordings.name.replace("recordings", "supervisions"))


def choose(parts: list[tuple[str, str, Path]], wanted: str, folder: Path) -> Path:
    """Return the recordings of a part, found by its full name or by an unambiguous short name.

    Raises:
        UserError: No part or several parts have this name. The message lists all parts.
    """
    matching = [path for full, part, path in parts if full == wanted]
    matching = matching or [path for full, part, path in parts if part == wanted]
    if len(matching) == 1:
        return matching[0]
    names = [part for _, part, _ in parts]
    shown = [part if names.count(part) == 1 else full for full, part, _ in parts]
    listed = " ".join(shown[:SHOWN]) + (" …" if len(shown) > SHOWN else "")
    problem = "is several parts" if matching else f"is no part{nearest(wanted, shown)}"
    raise UserError(
        f"{wanted!r} {problem} of what lhotse made in {folder}; there are: {listed}. Say which to "
        "train on, to choose by and to test on: --train-splits, --dev-splits, --test-splits"
    )
