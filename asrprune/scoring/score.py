"""Compute error rates of decoded test sets with 95 % intervals, and rows for RESULTS.md.

The last lines of the output are one ``%WER`` line for each test set.
"""

import argparse
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.base.files import read_json, write_json, write_text
from asrprune.base.markdown import table
from asrprune.scoring.bootstrap import Interval, paired_difference, wer_interval
from asrprune.scoring.files import read_recogs, result_files
from asrprune.scoring.wer import ErrorCounts, Utterance, character_errors, total, word_errors

log = logging.getLogger(__name__)

COLUMNS = ("set", "method", "WER", "95 % interval", "ins", "del", "sub", "words", "CER", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune score`` to a parser."""
    parser.add_argument("--exp-dir", type=Path, required=True, help="where decode wrote to")
    parser.add_argument("--decoding-method", required=True, help="such as greedy_search")
    parser.add_argument("--test-sets", nargs="+", required=True, help="such as test-clean")
    parser.add_argument(
        "--against",
        type=Path,
        help="another experiment's folder: also print the difference on common utterances",
    )


def main(args: argparse.Namespace) -> None:
    """Score every test set, and put its row into ``results-METHOD.json`` and ``.md`` of the folder.

    A row remains until the same set is scored again with the same settings and model.
    """
    method = args.decoding_method
    rows, lines = {}, []
    for name in args.test_sets:
        path = newest_results(args.exp_dir, method, name)
        utterances = read_recogs(path)
        if not utterances:
            raise UserError(f"{path} holds no utterances: is the test set {name} empty?")
        suffix = path.stem.removeprefix(f"recogs-{name}-")
        row = {"method": method, "model": f"{args.exp_dir.name} {suffix}"}
        row |= {"file": f"{method}/{path.name}", **score_set(utterances)}
        if args.against:
            other = newest_results(args.against, method, name)
            row["against"] = {"file": str(other), **compare(utterances, read_recogs(other))}
            lines.append(describe_difference(name, path, other, row["against"]))
        rows[f"{name} {suffix}"] = row
    write_table(args.exp_dir / f"results-{method}.json", rows)
    for unit in ("CER", "WER"):
        for key, row in rows.items():
            counts = ErrorCounts(**row[unit]["counts"])
            lines.append(f"%{unit} {counts} {key.split()[0]} {method}\n")
    sys.stdout.write("".join(lines))


def write_table(path: Path, rows: dict[str, Any]) -> None:
    """Add rows to the table of ``path``. They replace rows of the same result files.

    Args:
        path: the JSON file. The Markdown file has the same name with ``.md``.
        rows: the rows by test set and suffix of the result files.
    """
    files = {row["file"] for row in rows.values()}
    earlier = read_json(path) if path.is_file() else {}
    kept = {key: row for key, row in earlier.items() if row["file"] not in files}
    rows = dict(sorted((kept | rows).items()))
    write_json(path, rows)
    write_text(path.with_suffix(".md"), markdown(rows))


def newest_results(exp_dir: Path, method: str, test_set: str) -> Path:
    """Return the newest recogs file of a test set.

    Raises:
        UserError: there is no recogs file.
    """
    found = result_files(exp_dir / method, test_set)
    if not found:
        raise UserError(
            f"there is no recogs-{test_set}-*.txt in {exp_dir / method}; the decode stage (8) with "
            f"--decoding-method {method} makes it"
        )
    if len(found) > 1:
        log.info("%d results of %s; taking the newest, %s", len(found), test_set, found[-1].name)
    return found[-1]


def score_set(utterances: list[Utterance]) -> dict[str, Any]:
    """Return ``{"utterances": N, "WER": …, "CER": …}``. A rate has its interval and its counts."""
    scores: dict[str, Any] = {"utterances": len(utterances)}
    for unit, errors_of in (("WER", word_errors), ("CER", character_errors)):
        counts = errors_of(utterances)
        interval = wer_interval([c.errors for c in counts], [c.words for c in counts])
        scores[unit] = {**_json(interval), "counts": asdict(total(counts))}
    return scores


def compare(ours: list[Utterance], theirs: list[Utterance]) -> dict[str, Any]:
    """Return the difference of the word error rates, ours minus theirs, on common utterances.

    Args:
        ours: the first result.
        theirs: the second result.

    Raises:
        UserError: the results have no common utterance, or a reference differs.
    """
    others = {utterance.id: utterance for utterance in theirs}
    common = [utterance for utterance in ours if utterance.id in others]
    if not common:
        raise UserError("--against: the two results have no utterance in common")
    for utterance in common:
        if utterance.ref != others[utterance.id].ref:
            raise UserError(
                f"--against: the references of {utterance.id} differ; decode both with one manifest"
            )
    a = word_errors(common)
    b = word_errors(others[utterance.id] for utterance in common)
    interval = paired_difference([c.errors for c in a], [c.errors for c in b], [c.words for c in a])
    return {
        "utterances": len(common),
        "left_out": len(ours) + len(theirs) - 2 * len(common),
        **_json(interval),
    }


def describe_difference(name: str, ours: Path, theirs: Path, found: dict[str, Any]) -> str:
    """Return one line about a paired difference."""
    difference = _show_interval(found, sign="+")
    left_out = f", {found['left_out']} in one only" if found["left_out"] else ""
    return (
        f"{name}: WER {difference}, {ours} minus {theirs} "
        f"({found['utterances']} common utterances{left_out})\n"
    )


def markdown(rows: dict[str, Any]) -> str:
    """Return the rows as a table for RESULTS.md."""
    lines = []
    for key, row in rows.items():
        wer, counts = row["WER"], row["WER"]["counts"]
        cells = [
            key.split()[0],
            row["method"],
            _percent(wer["rate"]),
            f"{_percent(wer['low'])}–{_percent(wer['high'])}",
            *(counts[key] for key in ("insertions", "deletions", "substitutions", "words")),
            _percent(row["CER"]["rate"]),
            row["model"],
        ]
        lines.append(cells)
    return table(COLUMNS, lines) + "\n"


def _json(interval: Interval) -> dict[str, float | None]:
    """Return an interval for JSON, with None for infinity, which JSON lacks.

    A rate is infinite if there are errors and no reference words.
    """
    finite = [x if abs(x) != float("inf") else None for x in interval]
    return dict(zip(("rate", "low", "high"), finite, strict=True))


def _show_interval(found: dict[str, Any], sign: str = "") -> str:
    value, low, high = (_percent(found[key], sign) for key in ("rate", "low", "high"))
    return f"{value} [{low}, {high}]"


def _percent(rate: float | None, sign: str = "") -> str:
    return "inf" if rate is None else f"{100 * rate:{sign}.2f}"
