"""Report what data pruning did in a run: which cuts it kept, and which cuts are the hardest.

The report is ``report.md``, with the picture ``report.png``, in the run's folder ``pruning/``. The
hardest cuts have the highest typical scores. They often have a wrong transcript.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.serialization import open_best

from asrprune.base.errors import UserError
from asrprune.base.files import write_text
from asrprune.data_pruning.ids import hash_id
from asrprune.data_pruning.record import Cycle, Record, read_record

DURATION = "duration"
DURATIONS = 10  # duration classes, of about equally many cuts
MAX_GROUPS = 20  # rows of a table of speakers or languages: the least kept groups
SCORE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILES = (0, 0.25, 0.5, 0.75, 1)  # over the groups, in a picture of more than MAX_GROUPS groups


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune report data``."""
    parser.add_argument("exp_dir", type=Path, help="folder of a training, such as exp/conformer")
    parser.add_argument("--hardest", type=int, default=20, help="number of hardest cuts to list")
    parser.add_argument("--plots", type=int, default=1, choices=(0, 1), help="1: draw pictures")


def main(args: argparse.Namespace) -> None:
    """Print the report, and write it with its picture."""
    from asrprune.report.data_plots import draw

    folder = args.exp_dir / "pruning"
    record = read_record(folder)
    if not record.cycles:
        raise UserError(
            f"{folder} holds no cycle yet. Run the report after the first step of the training."
        )
    text = "\n\n".join([f"# Data pruning of {args.exp_dir}", *_parts(record, args.hardest)])
    write_text(folder / "report.md", text + "\n")
    sys.stdout.write(text + "\n")
    written = [folder / "report.md"]
    if args.plots and draw(record, folder / "report.png"):
        written.append(folder / "report.png")
    sys.stdout.write(f"\n{', '.join(map(str, written))}\n")


def _parts(record: Record, hardest: int) -> Iterator[str]:
    """Yield the parts of the report below its heading."""
    if prunes(record):
        yield _table(cycle_rows(record))
        for name, rows in kept_by_group(record).items():
            yield f"## Kept by {name}\n\n{_table(rows)}"
        yield f"## Visits\n\n{_table(visit_rows(record))}"
    else:
        yield (
            f"This training pruned no data: all {len(record.duration)} cuts were trained on in "
            f"each of the {len(record.planned)} cycles so far."
        )
    yield f"## Scores at the start of each cycle\n\n{_table(score_rows(record))}"
    yield f"## The {hardest} hardest cuts\n\n{_table(hardest_rows(record, hardest))}"


def prunes(record: Record) -> bool:
    """Return whether some cycle left out a cut."""
    return not all(cycle.keep.all() for cycle in record.planned)


def cycle_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row for each cycle: what its plan kept."""
    for cycle in record.planned:
        report = cycle.report
        yield {
            "cycle": cycle.cycle,
            "phase": cycle.phase,
            "cuts": _percent(report["cuts"]),
            "seconds": _percent(report["seconds"]),
            "new": _percent(report.get("turnover")),
            "never visited": _percent(report.get("never_visited")),
            "forced by age": report["forced"],
            "by floors": report["floored"],
            "without score": report["unknown"],
            "notes": "; ".join(report["notes"]),
        }


def scored(record: Record) -> list[Cycle]:
    """Return the cycles at whose start some scores were known."""
    return [cycle for cycle in record.cycles if np.isfinite(cycle.last).any()]


def score_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row for each cycle with scores: quantiles of the utterances' typical scores."""
    for cycle in scored(record):
        values = np.nanquantile(cycle.typical, SCORE_QUANTILES)
        yield {
            "cycle": cycle.cycle,
            **{
                f"{100 * share:g} %": _number(value)
                for share, value in zip(SCORE_QUANTILES, values, strict=True)
            },
        }


def kept_by_group(record: Record) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a table for each grouping: the share kept of each class of cuts.

    The share is the mean over the pruned cycles. The classes are those of duration, and the groups
    of each grouping in the manifest (speaker, language, corpus).
    """
    pruned = [cycle for cycle in record.cycles if cycle.phase == "pruned"]
    if not pruned:
        return {}
    kept = sum(cycle.keep.astype(np.float32) for cycle in pruned) / len(pruned)
    edges = duration_edges(record)
    by_duration = _shares(kept, np.searchsorted(edges, record.duration, side="right"))
    bounds = [record.duration.min(), *edges, record.duration.max()]
    result = {
        DURATION: [
            {"seconds": f"{low:.1f}–{high:.1f}", "cuts": count, "kept": _percent(share)}
            for (low, high), (_, count, share) in zip(
                itertools.pairwise(bounds), by_duration, strict=True
            )
        ]
    }
    for name, (codes, names) in record.groups.items():
        shares = sorted(_shares(kept, codes), key=lambda row: row[2])
        title = name if len(shares) <= MAX_GROUPS else f"{name} (the {MAX_GROUPS} least kept)"
        result[title] = [
            {name: names[code], "cuts": count, "kept": _percent(share)}
            for code, count, share in shares[:MAX_GROUPS]
        ]
    return result


def visit_rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of visits: how many cuts have it. The last plan is included."""
    visits = record.visits
    for number, count in enumerate(np.bincount(visits)):
        if count:
            yield {"cycles": number, "cuts": int(count), "share": _percent(count / len(visits))}


def hardest_rows(record: Record, count: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each of the utterances with the highest typical score."""
    last = record.cycles[-1]
    known = np.flatnonzero(np.isfinite(last.typical))
    hardest = known[np.argsort(-last.typical[known], kind="stable")[:count]]
    cuts = {int(n): np.flatnonzero(record.utterance == n).tolist() for n in hardest}
    entries = _entries(record, [cut for copies in cuts.values() for cut in copies])
    visits = record.visits
    for number, copies in cuts.items():
        cut = min(copies, key=lambda copy: len(entries[copy]["id"]))  # the original of the copies
        entry = entries[cut]
        text = " ".join(s.get("text") or "" for s in entry.get("supervisions") or [])
        yield {
            "score": _number(last.typical[number]),
            "cut": entry["id"],
            "seconds": f"{record.duration[cut]:.2f}",
            "visits": int(visits[cut]),
            "transcript": text,
        }


def duration_edges(record: Record) -> np.ndarray:
    """Return the durations that divide the cuts into classes of about equally many cuts.

    Each is the duration of a cut, and above the shortest duration. So no class is empty.
    """
    shares = np.arange(1, DURATIONS) / DURATIONS
    edges = np.unique(np.quantile(record.duration, shares, method="higher"))
    return edges[edges > record.duration.min()]


def kept_over_time(record: Record) -> dict[str, tuple[list[str], np.ndarray]]:
    """Return the share of each class that each cycle kept, by duration and by each grouping.

    A grouping with more than `MAX_GROUPS` groups has quantiles over its groups as classes.

    Returns:
        Name of the grouping -> (labels of its classes, shares (planned cycles, classes)). The label
        of a duration class is its shortest duration.
    """
    edges = duration_edges(record)
    labels = [f"{low:.1f} s" for low in (record.duration.min(), *edges)]
    classes = np.searchsorted(edges, record.duration, side="right")
    result = {DURATION: (labels, _shares_over_time(record, classes))}
    for name, (codes, names) in record.groups.items():
        labels, shares = list(names), _shares_over_time(record, codes)
        if len(names) > MAX_GROUPS:
            labels = [f"quantile {share:g}" for share in QUANTILES]
            shares = np.quantile(shares, QUANTILES, axis=1).T
        result[name] = labels, shares
    return result


def _shares_over_time(record: Record, codes: np.ndarray) -> np.ndarray:
    return np.array([[share for *_, share in _shares(c.keep, codes)] for c in record.planned])


def _shares(kept: np.ndarray, codes: np.ndarray) -> list[tuple[int, int, float]]:
    """Return (code, number of cuts, mean of ``kept`` over the cuts) of each class with cuts."""
    counts = np.bincount(codes)
    sums = np.bincount(codes, weights=kept)
    return [(int(c), int(counts[c]), float(sums[c] / counts[c])) for c in np.flatnonzero(counts)]


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


def _table(rows: Any) -> str:
    """Return a Markdown table of dicts with the same keys; "none" without rows."""
    rows = list(rows)
    if not rows:
        return "none"
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    for row in rows:
        cells = " | ".join(str(value).replace("|", "/") for value in row.values())
        lines.append(f"| {cells} |")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
