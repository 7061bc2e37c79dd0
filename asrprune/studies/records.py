"""What a finished cell leaves for the comparison: errors by speaker, and what the training saw.

A record is a dictionary of plain values. Of a training that was stopped and went on, ``attempts``
is above 1 and ``seconds`` is of the last one only: tables leave such times out.
"""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np

from asrprune.config import Config
from asrprune.data_pruning.index import CutIndex
from asrprune.data_pruning.plan import PRUNED
from asrprune.data_pruning.record import read_record
from asrprune.data_pruning.report import kept_over_time
from asrprune.environment import git_state, machine
from asrprune.errors import UserError
from asrprune.scoring.files import read_recogs
from asrprune.scoring.score import newest_results
from asrprune.scoring.wer import ErrorCounts, Utterance, total, word_errors
from asrprune.studies.grid import Cell, phases
from asrprune.studies.options import StudyOptions

Record = dict[str, Any]


def make_records(
    study: StudyOptions,
    cell: Cell,
    config: Config,
    folder: Path,
    command: str,
    progress: dict[str, dict[str, Any]],
) -> list[Record]:
    """The records of a cell, one a test set; everything else in them is of the training.

    :param progress: by step, what it took (`asrprune.studies.cell`).
    :raises UserError: a file of the cell is missing or damaged.
    """
    train = progress["train"]
    others = sum(took["seconds"] for step, took in progress.items() if step != "train")
    about = {
        "method": cell.method,
        "policy": config.data_pruning.policy,
        "keep": cell.keep,
        "seed": cell.seed,
        "command": command,
        "data": training_data_digest(study, config),
        "epochs": cell.epochs,
        "avg": min(study.avg, cell.epochs),
        "decoding_method": study.decoding_method,
        **what_it_saw(folder, config),
        "kept": who_was_kept(folder),
        "attempts": train["attempts"],
        "seconds": round(train["seconds"], 1),
        "cpu_seconds": round(train["cpu_seconds"], 1),
        "other_seconds": round(others, 1),
        "synthetic": study.synthetic,
        "git": git_state(),
        "machine": {"system": platform.system(), "cores": machine()["cores"]},
    }
    return [
        {"set": name, **_errors(study, config, folder, name), **about} for name in study.test_sets
    ]


def training_data_digest(study: StudyOptions, config: Config) -> str:
    """What the validate stage calls the training set."""
    from asrprune.training.train import read_statistics

    return read_statistics(Path(study.manifest_dir), config.data.corpus)["train"]["digest"]


def _errors(study: StudyOptions, config: Config, folder: Path, name: str) -> Record:
    """Words and errors of a test set, in all and as [errors, words] of each speaker."""
    utterances = read_recogs(newest_results(folder, study.decoding_method, name))
    if not utterances:
        raise UserError(f"the test set {name} holds no utterances")
    counts = word_errors(utterances)
    manifest = Path(study.manifest_dir, f"{config.data.corpus}_cuts_{name}.jsonl.gz")
    speakers = _by_speaker(utterances, counts, CutIndex.from_manifest(manifest))
    whole = total(counts)
    return {
        "words": whole.words,
        "errors": whole.errors,
        "insertions": whole.insertions,
        "deletions": whole.deletions,
        "substitutions": whole.substitutions,
        "speakers": speakers,
    }


def _by_speaker(
    utterances: list[Utterance], counts: list[ErrorCounts], index: CutIndex
) -> dict[str, list[int]]:
    """Speaker -> [errors, words]; cuts without a speaker are each a speaker of their own."""
    ids = [utterance.id for utterance in utterances]
    codes, names = index.groups.get("speaker", (np.zeros(len(index), int), [""]))
    found: dict[str, list[int]] = {}
    for name, code, count in zip(ids, codes[index.cuts_of(ids)], counts, strict=True):
        sums = found.setdefault(names[code] or name, [0, 0])
        sums[0] += count.errors
        sums[1] += count.words
    return dict(sorted(found.items()))


def who_was_kept(folder: Path) -> dict[str, dict[str, Any]]:
    """Class -> its ``labels``, and ``shares``: a row a cycle, what it kept of each."""
    return {
        name: {"labels": labels, "shares": shares.round(3).tolist()}
        for name, (labels, shares) in kept_over_time(read_record(folder / "pruning")).items()
    }


def what_it_saw(folder: Path, config: Config) -> Record:
    """Audio, visits and steps of a whole training, and how its keep-sets changed.

    ``hours`` is audio after time dropping, ``hours_before_dropping`` before it. ``turnover`` is the
    mean share of a pruned cycle's keep-set that was not in the pruned one before; ``never_kept``
    the share of the cuts that no pruned cycle kept, ``never_visited`` that no cycle did; visits of
    a cut are ``[least, 5 %, median, 95 %, most]``.

    :raises UserError: the training did not end here.
    """
    from asrprune.training.checkpoint import load_checkpoint

    epochs = config.training.epochs
    lines = _metrics(folder / "log" / "metrics.jsonl")
    seen = [line for line in lines if line["kind"] == "seen" and line["epoch"] == epochs]
    if not seen:
        raise UserError(f"{folder}/log/metrics.jsonl does not say what {epochs} epochs saw")
    state = load_checkpoint(folder / f"epoch-{epochs}.pt")
    return {
        "hours": round(seen[-1]["seconds_left"] / 3600, 4),
        "hours_before_dropping": round(seen[-1]["seconds"] / 3600, 4),
        "visits": seen[-1]["cuts"],
        "clamped": seen[-1]["clamped"],
        "steps": state["position"]["step"],
        **_keep_sets(lines, state["pruning"], config),
        "versions": state["versions"],
    }


def _keep_sets(lines: list[Record], pruning: dict[str, Any] | None, config: Config) -> Record:
    epochs = config.training.epochs
    nothing = {"turnover": None, "never_kept": 0.0, "never_visited": 0.0}
    if pruning is None:
        return {**nothing, "visits_of_a_cut": [epochs] * 5}
    cycle = config.data_pruning.cycle
    of_cycles = phases(config.data_pruning, epochs)[::cycle]
    visits = pruning["history"]["visits"].numpy().view(np.uint16).astype(int)
    kept = np.unpackbits(pruning["plan"]["keep"].numpy(), count=len(visits)).astype(int)
    visits += kept  # of the last cycle, which no other one follows
    full = sum(phase != PRUNED for phase in of_cycles)
    # a resume at the start of an epoch writes its line again
    by_step = {line["step"]: line for line in lines if line["kind"] == "pruning"}
    turnover = [
        line["turnover"]
        for line, before, phase in zip(
            [by_step[step] for step in sorted(by_step)][::cycle][1:],
            of_cycles[:-1],
            of_cycles[1:],
            strict=False,
        )
        if before == phase == PRUNED and "turnover" in line
    ]
    shares = {
        "turnover": round(float(np.mean(turnover)), 4) if turnover else None,
        "never_kept": round(float(np.mean(visits <= full)), 4) if full < len(of_cycles) else 0.0,
        "never_visited": round(float(np.mean(visits == 0)), 4),
    }
    quantiles = np.percentile(visits, [0, 5, 50, 95, 100], method="nearest")
    return {**shares, "visits_of_a_cut": quantiles.astype(int).tolist()}


def _metrics(path: Path) -> list[Record]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; the training writes it")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
