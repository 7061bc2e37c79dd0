"""Report what data pruning did in a run: which cuts it kept, and which cuts are the hardest.

The report is ``report.md``, with the picture ``report.png``, in the run's folder ``pruning/``. The
hardest cuts have the highest typical scores. They often have a wrong transcript.

``report.html`` is a page for a browser. It has the same tables, and lets you hear the hardest cuts
and read what the model recognises in them. Choose the cuts with a wrong transcript there, and save
their ids as a file for ``asrprune validate --leave-out``.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.base.arguments import true_or_false
from asrprune.base.errors import UserError
from asrprune.base.files import write_text
from asrprune.base.markdown import table
from asrprune.data_pruning.phases import PRUNED
from asrprune.data_pruning.record import Cycle, Record, read_record
from asrprune.report.hardest import HardCut, hardest_cuts, hardest_rows

DURATION = "duration"
DURATIONS = 10  # duration classes, of about equally many cuts
MAX_GROUPS = 20  # rows of a table of speakers or languages: the least kept groups
SCORE_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
QUANTILES = (0, 0.25, 0.5, 0.75, 1)  # over the groups, in a picture of more than MAX_GROUPS groups


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune report data``."""
    parser.add_argument("exp_dir", type=Path, help="folder of a training, such as exp/conformer")
    parser.add_argument("--hardest", type=int, default=30, help="number of hardest cuts to list")
    parser.add_argument("--plots", type=int, default=1, choices=(0, 1), help="1: draw pictures")
    parser.add_argument("--html", type=true_or_false, default=True, help="write report.html too")
    parser.add_argument(
        "--model",
        type=Path,
        help="model that recognises the hardest cuts for report.html; default: "
        "EXP_DIR/averaged.pt, or without it the newest epoch-N.pt",
    )


def main(args: argparse.Namespace) -> None:
    """Print the report, and write it with its picture and its page.

    Raises:
        UserError: the run has recorded no cycle; the manifest of the training is missing or is
            another one; or --model is no model.
    """
    from asrprune.report.data_plots import draw

    if args.hardest < 0:
        raise UserError(f"--hardest {args.hardest} is below 0. Give a number of cuts")
    folder = args.exp_dir / "pruning"
    record = read_record(folder)
    if not record.cycles:
        raise UserError(
            f"{folder} holds no cycle yet. Run the report after the first step of the training."
        )
    cuts = hardest_cuts(record, args.hardest)
    title = f"Data pruning of {args.exp_dir}"
    text = "\n\n".join([f"# {title}", *_parts(record, cuts)])
    write_text(folder / "report.md", text + "\n")
    sys.stdout.write(text + "\n")
    written = [folder / "report.md"]
    if args.plots and draw(record, folder / "report.png"):
        written.append(folder / "report.png")
    if args.html:
        from asrprune.report.data_page import data_page
        from asrprune.report.hypotheses import recognise_cuts

        recognised = recognise_cuts(cuts, args.exp_dir, args.model)
        write_text(folder / "report.html", data_page(record, cuts, recognised, title))
        written.append(folder / "report.html")
    sys.stdout.write(f"\n{', '.join(map(str, written))}\n")


def _parts(record: Record, cuts: list[HardCut]) -> Iterator[str]:
    """Yield the parts of the report below its heading."""
    if prunes(record):
        yield _table(cycle_rows(record))
        for name, rows in kept_by_group(record).items():
            yield f"## Kept by {name}\n\n{_table(rows)}"
        yield f"## Visits\n\n{_table(visit_rows(record))}"
    else:
        yield no_pruning(record)
    yield f"## Scores at the start of each cycle\n\n{_table(score_rows(record))}"
    yield f"## The {len(cuts)} hardest cuts\n\n{_table(hardest_rows(cuts))}"


def no_pruning(record: Record) -> str:
    """Return a sentence about a training that pruned no data."""
    return (
        f"This training pruned no data: all {len(record.duration)} cuts were trained on in "
        f"each of the {len(record.planned)} cycles so far."
    )


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


@dataclass(frozen=True)
class Savings:
    """Shares of the audio that a run trained on, before time is dropped inside of cuts."""

    trained: list[float]  # the share of the audio of each planned cycle
    asked: list[float]  # the keep ratio of each planned cycle; 1 in warm-up and anneal cycles
    share: float  # the share of the audio of all planned cycles
    ceiling: float  # that share if every cycle were pruned to its keep ratio and to no more


def savings(record: Record) -> Savings:
    """Return the shares of the audio that the planned cycles train on.

    Without a pruned cycle, the ceiling is 1.
    """
    trained = [cycle.report["seconds"] for cycle in record.planned]
    asked = [cycle.report["asked"] for cycle in record.planned]
    pruned = [cycle.report["asked"] for cycle in record.planned if cycle.phase == PRUNED]
    return Savings(
        trained,
        asked,
        float(np.mean(trained)) if trained else 1.0,
        float(np.mean(pruned)) if pruned else 1.0,
    )


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
    pruned = [cycle for cycle in record.cycles if cycle.phase == PRUNED]
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


def _table(rows: Iterable[dict[str, Any]]) -> str:
    """Return a Markdown table of dicts with the same keys; "none" without rows."""
    rows = list(rows)
    if not rows:
        return "none"
    return table(list(rows[0]), (row.values() for row in rows))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
