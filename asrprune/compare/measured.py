"""Values that the records of several types of comparison share: errors, data and costs."""

import hashlib
import json
import platform
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from asrprune.base.environment import git_state, machine, machine_id
from asrprune.base.errors import UserError, nearest
from asrprune.base.files import read_json
from asrprune.base.options import IDENTITY, RESUMABLE, flatten
from asrprune.compare.options import StudyOptions
from asrprune.compare.study import TRAIN, Cell, Record
from asrprune.config import Config, read_yaml
from asrprune.data_pruning.index import CutIndex
from asrprune.scoring.files import read_recogs
from asrprune.scoring.score import newest_results
from asrprune.scoring.wer import ErrorCounts, Utterance, total, word_errors


def training_data_digest(options: StudyOptions, config: Config) -> str | None:
    """Return the digest of the training set, which the validate stage (3) wrote.

    Returns:
        The digest; None if there is no data yet.
    """
    from asrprune.training.train import read_statistics

    folder, corpus = Path(options.manifest_dir), config.data.corpus
    if not (folder / f"{corpus}_statistics.json").is_file():
        return None
    return read_statistics(folder, corpus)["train"]["digest"]


def check_sets(options: StudyOptions, config: Config, names: Iterable[str]) -> None:
    """Check that the manifest folder has all sets that the comparison uses.

    Args:
        options: options of the comparison, with the manifest folder.
        config: configuration of the trainings, with the prefix of the manifests.
        names: names of the sets.

    Raises:
        UserError: the folder has no manifest of a set.
    """
    begin, end = f"{config.data.corpus}_cuts_", ".jsonl.gz"
    found = Path(options.manifest_dir).glob(f"{begin}*{end}")
    known = sorted(path.name.removeprefix(begin).removesuffix(end) for path in found)
    for name in names:
        if name not in known:
            raise UserError(f"{options.manifest_dir} has no set {name!r}{nearest(name, known)}")


def train_steps(options: StudyOptions, cell: Cell, folder: Path) -> dict[str, list[str]]:
    """Return the arguments of the first two steps of every cell: train and average."""
    average = ["--epoch", str(cell.epochs), "--avg", str(min(options.avg, cell.epochs))]
    where = ["--config", options.config, "--exp-dir", str(folder)]
    return {
        TRAIN: [TRAIN, *where, *data_words(options), *cell.overrides],
        "average": ["average", "--exp-dir", str(folder), *average],
    }


def data_words(options: StudyOptions) -> list[str]:
    """Return the arguments of a command that name the data."""
    return ["--manifest-dir", options.manifest_dir, "--lang-dir", options.lang_dir]


def decoding_words(options: StudyOptions, sets: Iterable[str] | None = None) -> list[str]:
    """Return the arguments of a command that name the test sets and the decoding method.

    Args:
        options: options of the comparison.
        sets: names of the sets; None: all test sets.
    """
    sets = options.test_sets if sets is None else sets
    return ["--test-sets", *sets, "--decoding-method", options.decoding_method]


def how_it_is_made(options: StudyOptions, cell: Cell, folder: Path) -> Record:
    """Return the values of a record that follow from the grid: the training's command and tests."""
    return {
        "command": shlex.join(["asrprune", *train_steps(options, cell, folder)[TRAIN]]),
        "epochs": cell.epochs,
        "avg": min(options.avg, cell.epochs),
        "decoding_method": options.decoding_method,
    }


def what_it_took(train: dict[str, Any]) -> Record:
    """Return the time and attempts of a training, with its data, code and machine.

    If the training was stopped and continued, ``attempts`` is above 1 and the times cover the last
    attempt only. Tables leave these times out.

    Args:
        train: the entry of the training in the cell's progress (`asrprune.compare.cell`).
    """
    return {
        "attempts": train["attempts"],
        "seconds": round(train["seconds"], 1),
        "cpu_seconds": round(train["cpu_seconds"], 1),
        **{name: train[name] for name in ("data", "git", "machine")},
    }


def where_it_runs(threads: int, jobs: int) -> Record:
    """Return the state of the code, and the machine on which a training ran.

    Args:
        threads: CPU threads of the training.
        jobs: number of trainings that ran at a time.
    """
    return {
        "git": git_state(),
        "machine": {
            "system": platform.system(),
            "cores": machine()["cores"],
            "id": machine_id(),
            "threads": threads,
            "jobs": jobs,
        },
    }


def digests_of_sets(options: StudyOptions, corpus: str) -> dict[str, str]:
    """Return the digests of the test and development sets, which the validate stage (3) wrote.

    Args:
        options: options of the comparison, with the manifest folder.
        corpus: the prefix of the manifests.

    Returns:
        Name of the set -> digest. Empty if there is no data yet.
    """
    path = Path(options.manifest_dir) / f"{corpus}_statistics.json"
    if not path.is_file():
        return {}
    return {f"set {name}": set_["digest"] for name, set_ in read_json(path)["eval"].items()}


def digest_of_config(path: str | Path) -> str:
    """Return a digest of the options in a configuration file that shape a training.

    Options that may change when a training goes on, and comments, do not count.
    """
    resumable = {
        key
        for key, _, field in flatten(Config())
        if field.metadata.get("change", IDENTITY) == RESUMABLE
    }
    values = {
        key: value
        for key, value in _flat(OmegaConf.to_container(read_yaml(path, "config")))
        if key not in resumable
    }
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def what_it_saw(folder: Path, config: Config) -> Record:
    """Return the totals of the data that a whole training saw.

    Returns:
        The last line of kind ``seen`` in the training's metrics.

    Raises:
        UserError: the folder has no metrics of the last epoch.
    """
    epochs, path = config.training.epochs, folder / "log" / "metrics.jsonl"
    seen = [
        line for line in read_metrics(path) if line["kind"] == "seen" and line["epoch"] == epochs
    ]
    if not seen:
        raise UserError(
            f"{path} has no line of kind 'seen' for epoch {epochs}: the training did not end in "
            "this folder"
        )
    return seen[-1]


def what_does_not_shrink(folder: Path, seen: Record) -> Record:
    """Return the costs of a training that do not shrink with its data.

    Args:
        folder: the folder of the training.
        seen: the line of the metrics that `what_it_saw` returns.

    Returns:
        ``padding``: the share of feature frames in batches that are padding. ``loading_seconds``:
        wall-clock seconds in which steps waited for batches. ``epoch_seconds``: wall-clock seconds
        of all epochs. The rest of a training's seconds is its start and its end.
    """
    lines = [
        line for line in read_metrics(folder / "log" / "metrics.jsonl") if line["kind"] == "time"
    ]
    return {
        "padding": round(1 - seen["frames"] / max(seen["padded_frames"], 1), 4),
        "loading_seconds": round(sum(line["loading"] for line in lines), 1),
        "epoch_seconds": round(sum(line["seconds"] for line in lines), 1),
    }


def what_the_training_did(folder: Path, config: Config) -> Record:
    """Return the audio, steps and passes of a whole training.

    ``passes`` are forward and backward passes of a micro-batch, ``teacher_passes`` are forward
    passes only. Both are None if the training did not count them.

    Raises:
        UserError: the folder has no metrics of the last epoch.
    """
    from asrprune.training.checkpoint import load_checkpoint

    seen = what_it_saw(folder, config)
    state = load_checkpoint(folder / f"epoch-{config.training.epochs}.pt")
    return {
        "hours": round(seen["seconds_left"] / 3600, 4),
        "visits": seen["cuts"],
        "steps": state["position"]["step"],
        "passes": seen.get("passes"),
        "teacher_passes": seen.get("teacher_passes"),
        "versions": state["versions"],
    }


def read_metrics(path: Path) -> list[Record]:
    """Return the lines of a training's metrics file.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; the training writes it")
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error


def errors_of_set(options: StudyOptions, config: Config, folder: Path, name: str) -> Record:
    """Return the errors of a test set that was decoded: see `errors_of_texts`.

    Args:
        options: options of the comparison.
        config: configuration of the training.
        folder: the folder that holds the decoding results.
        name: the name of the test set.

    Raises:
        UserError: the results are missing or damaged, or the test set has no utterances.
    """
    path = newest_results(folder, options.decoding_method, name)
    return errors_of_texts(options, config, path, name)


def errors_of_texts(options: StudyOptions, config: Config, path: Path, name: str) -> Record:
    """Return the words and errors of a test set, in total and as [errors, words] by speaker.

    Args:
        options: options of the comparison.
        config: configuration of the training.
        path: the file of references and texts (`asrprune.scoring.files.write_recogs`).
        name: the name of the test set.

    Raises:
        UserError: the file is missing or damaged, or the test set has no utterances.
    """
    utterances = read_recogs(path)
    if not utterances:
        raise UserError(f"the test set {name} holds no utterances")
    counts = word_errors(utterances)
    manifest = Path(options.manifest_dir, f"{config.data.corpus}_cuts_{name}.jsonl.gz")
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
    """Return speaker -> [errors, words]. Each cut without a speaker is a speaker of its own."""
    ids = [utterance.id for utterance in utterances]
    codes, names = index.groups.get("speaker", (np.zeros(len(index), int), [""]))
    found: dict[str, list[int]] = {}
    for name, code, count in zip(ids, codes[index.cuts_of(ids)], counts, strict=True):
        sums = found.setdefault(names[code] or name, [0, 0])
        sums[0] += count.errors
        sums[1] += count.words
    return dict(sorted(found.items()))
