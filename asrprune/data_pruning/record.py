"""Write and read what a run records of its data pruning, cycle by cycle, for reports.

``index.npz`` describes the N cuts of U utterances. ``cycle-NNN.npz`` holds what a cycle kept, and
the scores at the time of its plan. A training does not need these files to continue.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path
from asrprune.data_pruning.history import History
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.plan import Plan
from asrprune.data_pruning.scores import ScoreTable

END = "end"  # the phase after the last cycle


@dataclass
class Cycle:
    """The record of a planned cycle, or of the end of a training."""

    cycle: int
    phase: str
    keep: np.ndarray  # (N,) bool
    last: np.ndarray  # (U,) float32: last scores, saved as float16; NaN where unknown
    typical: np.ndarray  # (U,) float32: typical scores, saved as float16; NaN where unknown
    visits: np.ndarray  # (N,) uint16: earlier cycles that kept a cut
    report: dict[str, Any]  # the report of the plan


@dataclass
class Record:
    """All that a run has recorded."""

    manifest: str  # path of the training manifest
    cut_hash: np.ndarray  # (N,) uint64, hashes of the cuts' ids
    utterance: np.ndarray  # (N,) int32, the utterance of each cut
    duration: np.ndarray  # (N,) float32, seconds
    groups: dict[str, tuple[np.ndarray, list[str]]]
    cycles: list[Cycle]  # the last entry may be the end of the training, which has no plan

    @property
    def planned(self) -> list[Cycle]:
        """The cycles that were planned."""
        return [cycle for cycle in self.cycles if cycle.phase != END]

    @property
    def visits(self) -> np.ndarray:
        """The number of cycles that kept each cut, (N,) int64; the last plan is included."""
        last = self.cycles[-1]
        return last.visits.astype(np.int64) + last.keep


def write_index(folder: Path, index: CutIndex, manifest: str) -> None:
    """Write ``index.npz`` for the cuts of an index.

    Args:
        folder: folder to write to.
        index: of the training cuts.
        manifest: path of the manifest, which holds these cuts and perhaps others.
    """
    groups = {}
    for name, (codes, names) in index.groups.items():
        groups[f"{name}_codes"], groups[f"{name}_names"] = codes, np.array(names, dtype=np.str_)
    _write(
        folder / "index.npz",
        manifest=np.array(manifest),
        cut_hash=index.cut_hash,
        utterance=index.utterance,
        duration=index.duration,
        **groups,
    )


def write_cycle(folder: Path, plan: Plan, scores: ScoreTable, history: History) -> None:
    """Write ``cycle-NNN.npz``: a plan, and the scores and visits that it was made from."""
    known = scores.known
    _write(
        folder / f"cycle-{plan.cycle:03d}.npz",
        phase=np.array(plan.phase),
        keep=np.packbits(plan.keep),
        last=np.where(known, scores.last, np.nan).astype(np.float16),
        typical=np.where(known, scores.typical, np.nan).astype(np.float16),
        visits=history.visits,
        report=np.array(json.dumps(plan.report)),
    )


def write_end(folder: Path, cycle: int, scores: ScoreTable, history: History) -> None:
    """Write the scores and visits after the last cycle, as ``cycle-NNN.npz``.

    ``cycle`` is the number NNN of this file: one more than the number of the last cycle.
    """
    nothing = np.zeros(len(history.age), bool)
    write_cycle(folder, Plan(cycle, END, False, nothing, None, False, {}), scores, history)


def read_record(folder: Path) -> Record:
    """Read what a run has recorded.

    Raises:
        UserError: the run has recorded nothing, or a file is damaged.
    """
    index = _read(
        folder / "index.npz",
        "Without it there is no report. Continuing the training writes it again.",
    )
    names = [name.removesuffix("_codes") for name in index if name.endswith("_codes")]
    groups = {n: (index[f"{n}_codes"], index[f"{n}_names"].tolist()) for n in names}
    count = len(index["utterance"])
    cycles = []
    for number, path in cycle_files(folder).items():
        content = _read(path, "Delete it: the report leaves out a missing cycle.")
        cycles.append(
            Cycle(
                number,
                str(content["phase"]),
                np.unpackbits(content["keep"], count=count).view(bool),
                content["last"].astype(np.float32),
                content["typical"].astype(np.float32),
                content["visits"],
                json.loads(str(content["report"])),
            )
        )
    return Record(
        str(index["manifest"]),
        index["cut_hash"],
        index["utterance"],
        index["duration"],
        groups,
        cycles,
    )


def cycle_files(folder: Path) -> dict[int, Path]:
    """Return the files of cycles by number, in order. The last may be of the training's end."""
    found = {int(path.stem.rpartition("-")[2]): path for path in folder.glob("cycle-*.npz")}
    return dict(sorted(found.items()))


def _write(path: Path, **arrays: np.ndarray) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        # no array is named allow_pickle, as a type checker has to fear
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path, way_out: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(
            f"{path} does not exist. No training has begun in this folder. Give the folder of a "
            "training (training.exp_dir)."
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (ValueError, OSError, EOFError, KeyError, BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}). {way_out}") from error
