"""Compute filter-bank features of manifests: one cut per supervision, in parts that can resume.

A split becomes a cut manifest, ``<out>/<corpus>_cuts_<split>.jsonl.gz``, and a folder of feature
archives, ``<corpus>_feats_<split>``. The cut manifest appears only when it is complete. Each cut
spans one supervision and has the id of the supervision. Ids of copies at other speeds end in
``_sp0.9`` and ``_sp1.1``. If stage 1 was given cuts with features that fit, then
``<manifests>/<corpus>_cuts_<split>.jsonl.gz`` exists, and its cuts are used as they are.
"""

import argparse
import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asrprune.base.arguments import true_or_false
from asrprune.base.environment import usable_cores
from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path, read_json, write_json, write_text
from asrprune.data.audio import FEATURES, PartResult, archive_of, extract_part
from asrprune.data.manifests import parse_line, read_lines
from asrprune.data.parallel import progress_bar, run_parts
from asrprune.data.sources import read_recordings

SPEEDS = (0.9, 1.1)  # speed factors of the copies that --speed-perturb adds
FORMAT = 1  # version of the feature folders; folders of another version are computed again
FEW, MANY, PARTS = 100, 2000, 64  # limits of utterances in a part; parts of a medium corpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FbankOptions:
    """Options of :func:`compute_split`."""

    corpus: str
    manifest_dir: Path
    out_dir: Path
    speed_perturb: bool = False
    skip_bad_audio: bool = False
    jobs: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``asrprune fbank``."""
    parser.add_argument("--corpus", required=True, help="the first word of manifest names")
    parser.add_argument("--manifest-dir", type=Path, required=True, help="lhotse's manifests")
    parser.add_argument("--out-dir", type=Path, required=True, help="where cuts and features go")
    parser.add_argument("--splits", nargs="+", required=True, help="such as train-clean-100")
    parser.add_argument(
        "--speed-perturb", type=true_or_false, default=False, help="add copies at 0.9x and 1.1x"
    )
    parser.add_argument(
        "--bad-audio",
        choices=("error", "skip"),
        default="error",
        help="audio that cannot be read: stop, or leave the cut out and list it",
    )
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="processes")


def main(args: argparse.Namespace) -> None:
    """Compute the features of each split that is not finished."""
    options = FbankOptions(
        corpus=args.corpus,
        manifest_dir=args.manifest_dir,
        out_dir=args.out_dir,
        speed_perturb=args.speed_perturb,
        skip_bad_audio=args.bad_audio == "skip",
        jobs=args.jobs,
    )
    for split in args.splits:
        compute_split(options, split)


def cuts_path(folder: Path, corpus: str, split: str) -> Path:
    """Return the path of the cut manifest of a split."""
    return folder / f"{corpus}_cuts_{split}.jsonl.gz"


def archives_path(folder: Path, corpus: str, split: str) -> Path:
    """Return the folder of the feature archives that this stage makes for a split."""
    return folder / f"{corpus}_feats_{split}"


def unreadable_path(folder: Path, corpus: str, split: str) -> Path:
    """Return the path of the list of cuts with unreadable audio (columns: cut, file, reason)."""
    return folder / f"{corpus}_unreadable_{split}.tsv"


def compute_split(options: FbankOptions, split: str) -> None:
    """Compute the features of one split. Finished parts of an earlier run are kept.

    Raises:
        UserError: A manifest is missing or wrong, audio is unreadable, or the disk is full.
    """
    finished = cuts_path(options.out_dir, options.corpus, split)
    listed = unreadable_path(options.out_dir, options.corpus, split)
    folder = archives_path(options.out_dir, options.corpus, split)
    given = cuts_path(options.manifest_dir, options.corpus, split)
    if given.exists():
        _take(given, options, split, folder)
        return
    utterances = read_utterances(options.manifest_dir, options.corpus, split)
    identity = _identity(options, utterances)
    if _same(folder, identity, split):
        whole = finished.exists() and all(
            archive_of(part).exists() for part in folder.glob("part-*.jsonl.gz")
        )
        if whole and (options.skip_bad_audio or not listed.exists()):
            left_out = f"; {listed} lists what was left out" if listed.exists() else ""
            log.info("%s is finished%s", finished, left_out)
            return
    elif folder.exists():
        shutil.rmtree(folder)
    # from here on the split is incomplete, so no file may say that it is finished
    finished.unlink(missing_ok=True)
    listed.unlink(missing_ok=True)
    write_json(folder / "options.json", identity)
    for stale in folder.glob(".tmp-*"):  # left by a killed run
        stale.unlink()
    began = time.monotonic()
    results = _compute_parts(options, split, folder, utterances)
    took = time.monotonic() - began
    cuts = sum(result.cuts for result in results)
    if not cuts:
        raise UserError(f"{split}: no audio can be read; check the paths in {options.manifest_dir}")
    _gather(split, folder, finished, listed)
    log.info("%s: %d cuts, %.2f h", finished, cuts, _hours(results))
    fresh = _hours(result for result in results if not result.kept)
    log.info("computed %.2f h in %.1f s, %.0f times real time", fresh, took, 3600 * fresh / took)


def _take(given: Path, options: FbankOptions, split: str, folder: Path) -> None:
    """Use given cuts with features as the cuts of a split. Their archives stay where they are.

    Raises:
        UserError: Copies at other speeds are asked for, or the archives are in ``folder``.
    """
    if options.speed_perturb:
        raise UserError(
            f"the cuts of {split} came with features, whose speed cannot be changed: "
            "--speed-perturb false, or --ignore-features true to compute them from the recordings"
        )
    if folder.exists():  # an earlier run with other manifests made it
        for number, line in enumerate(read_lines(given, "stage 1 (manifests)"), 1):
            archive = parse_line(line, given, number)["features"]["storage_path"]
            if Path(archive).resolve().is_relative_to(folder.resolve()):
                raise UserError(
                    f"the features of {given} are in {folder}, which this stage would make anew: "
                    "take another --data-dir"
                )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    unreadable_path(options.out_dir, options.corpus, split).unlink(missing_ok=True)
    finished = cuts_path(options.out_dir, options.corpus, split)
    with atomic_path(finished) as temporary:
        shutil.copyfile(given, temporary)
    log.info("%s: the features that came with %s", finished, given)


def read_utterances(manifest_dir: Path, corpus: str, split: str) -> list[tuple[bytes, bytes]]:
    """Return (supervision line, recording line) of a split's utterances, sorted by supervision id.

    The order in manifests often comes from the file system. Sorting makes all later results
    independent of that order.

    Raises:
        UserError: A manifest is missing, empty or damaged, a recording is not listed, or two
            recordings have the same id and different audio.
    """
    made_by = "stage 1 (manifests)"
    of_recordings = manifest_dir / f"{corpus}_recordings_{split}.jsonl.gz"
    of_supervisions = manifest_dir / f"{corpus}_supervisions_{split}.jsonl.gz"
    recordings = read_recordings(of_recordings, made_by)
    utterances = []
    for number, line in enumerate(read_lines(of_supervisions, made_by), 1):
        supervision = parse_line(line, of_supervisions, number)
        recording = recordings.get(str(supervision.get("recording_id")))
        if recording is None:
            raise UserError(
                f"{of_supervisions}, line {number}: the recording of {supervision['id']} is not in "
                f"{of_recordings}; make the manifests again (stage 1)"
            )
        utterances.append((str(supervision["id"]), line, recording))
    if not utterances:
        raise UserError(f"{of_supervisions} is empty; check the corpus and stage 1 (manifests)")
    utterances.sort(key=lambda utterance: utterance[0])
    return [lines for _, *lines in utterances]


def _identity(options: FbankOptions, utterances: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return everything that the features depend on, to recognise an outdated split."""
    digest = hashlib.blake2b(digest_size=16)
    for supervision, recording in utterances:
        digest.update(supervision)
        digest.update(recording)
    return {
        "format": FORMAT,
        "features": FEATURES,
        "speeds": list(SPEEDS) if options.speed_perturb else [],
        "manifests": digest.hexdigest(),
    }


def _same(folder: Path, identity: dict[str, Any], split: str) -> bool:
    if not (folder / "options.json").exists():
        return False
    before = read_json(folder / "options.json")
    changed = [name for name in identity if before.get(name) != identity[name]]
    if changed:
        log.info("%s: made anew, because these changed: %s", split, ", ".join(changed))
    return not changed


def _compute_parts(
    options: FbankOptions, split: str, folder: Path, utterances: list[tuple[bytes, bytes]]
) -> list[PartResult]:
    copies = 1 + (len(SPEEDS) if options.speed_perturb else 0)
    work = partial(
        extract_part,
        folder=folder,
        speeds=SPEEDS if options.speed_perturb else (),
        skip_bad_audio=options.skip_bad_audio,
    )
    parts = list(_parts(utterances))
    with progress_bar(copies * len(utterances), f"features of {split}") as bar:
        jobs = min(options.jobs, len(parts))
        return [result for _, result in run_parts(work, parts, jobs, bar)]


def _parts(
    utterances: list[tuple[bytes, bytes]],
) -> Iterator[tuple[str, list[tuple[bytes, bytes]]]]:
    size = min(max(-(-len(utterances) // PARTS), FEW), MANY)
    for number, start in enumerate(range(0, len(utterances), size)):
        yield f"part-{number:05d}", utterances[start : start + size]


def _hours(results: Iterable[PartResult]) -> float:
    return sum(result.seconds for result in results) / 3600


def _gather(split: str, folder: Path, finished: Path, listed: Path) -> None:
    """Join the parts: first the lists of unreadable cuts, then the cut manifests."""
    rows = [
        row
        for path in sorted(folder.glob("part-*.unreadable.tsv"))
        for row in path.read_text(encoding="utf-8").splitlines()
    ]
    manifests = sorted(folder.glob("part-*.jsonl.gz"))
    if rows:
        write_text(listed, "\n".join(["cut\tfile\treason", *rows]) + "\n")
        log.warning("%s: cuts left out as unreadable: %d; see %s", split, len(rows), listed)
    with atomic_path(finished) as temporary, open(temporary, "wb") as joined:
        for path in manifests:
            # gzip files that are joined end to end are a valid gzip file
            with open(path, "rb") as part:
                shutil.copyfileobj(part, joined)
