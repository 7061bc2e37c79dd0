"""Find the cuts of a run with the highest typical scores. They often have a wrong transcript."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.serialization import open_best

from asrprune.base.errors import UserError
from asrprune.data_pruning.descriptions import describe_entry
from asrprune.data_pruning.ids import hash_id
from asrprune.data_pruning.record import Record


@dataclass(frozen=True)
class HardCut:
    """One of the hardest cuts of a run."""

    id: str
    score: float  # typical score of its utterance
    seconds: float
    visits: int  # cycles that kept the cut
    speaker: str  # empty where the manifest names none; the same for language and transcript
    language: str
    transcript: str
    entry: dict[str, Any]  # its entry in the manifest


def hardest_cuts(record: Record, count: int) -> list[HardCut]:
    """Return a cut of each of the utterances with the highest typical scores, highest first.

    Of the copies of an utterance, this is the original.

    Args:
        record: of the run.
        count: the maximum number of cuts.

    Raises:
        UserError: the manifest does not exist, or lacks one of the cuts.
    """
    last = record.cycles[-1]
    known = np.flatnonzero(np.isfinite(last.typical))
    hardest = known[np.argsort(-last.typical[known], kind="stable")[:count]]
    copies = {int(n): np.flatnonzero(record.utterance == n).tolist() for n in hardest}
    entries = _entries(record, [cut for cuts in copies.values() for cut in cuts])
    visits = record.visits
    found = []
    for number, cuts in copies.items():
        cut = min(cuts, key=lambda copy: len(entries[copy]["id"]))  # the original of the copies
        about = describe_entry(entries[cut])
        found.append(
            HardCut(
                about.id,
                float(last.typical[number]),
                float(record.duration[cut]),
                int(visits[cut]),
                about.speaker,
                about.language,
                about.text,
                entries[cut],
            )
        )
    return found


def hardest_rows(cuts: Iterable[HardCut]) -> Iterator[dict[str, Any]]:
    """Yield a row of a table for each cut."""
    for cut in cuts:
        yield {
            "score": f"{cut.score:.3f}",
            "cut": cut.id,
            "seconds": f"{cut.seconds:.2f}",
            "visits": cut.visits,
            "transcript": cut.transcript,
        }


def _entries(record: Record, cuts: list[int]) -> dict[int, dict[str, Any]]:
    """Return the manifest's entries of some cuts, found by their ids.

    Positions would not do: the training may have left out cuts of the manifest.

    Raises:
        UserError: the manifest does not exist, or lacks one of the cuts.
    """
    if not cuts:
        return {}
    manifest = record.manifest
    if not Path(manifest).is_file():
        raise UserError(
            f"{manifest}, the manifest of the training, does not exist in this folder. The report "
            "needs its transcripts. Run the report in the folder that the training ran in."
        )
    wanted = {int(record.cut_hash[cut]): cut for cut in cuts}
    found: dict[int, dict[str, Any]] = {}
    with open_best(manifest, "r") as file:
        for line in file:
            if len(found) == len(wanted):
                break
            if line.strip():
                entry = json.loads(line)
                cut = wanted.get(hash_id(entry["id"]))
                if cut is not None:
                    found[cut] = entry
    if missing := len(wanted) - len(found):
        raise UserError(
            f"{manifest} is not the manifest that the training read: it lacks {missing} of the "
            f"{len(wanted)} hardest cuts. Restore it, or list no cuts with --hardest 0."
        )
    return found
