"""Import cut manifests of lhotse: with their features if these fit, else with recordings alone."""

import gzip
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asrprune.base.errors import UserError
from asrprune.data.audio import FEATURES
from asrprune.data.importers.paths import find_base
from asrprune.data.importers.split import Entry, Options, write_entries
from asrprune.data.importers.utterance import id_of
from asrprune.data.manifests import parse_line
from asrprune.data.names import explain_missing
from asrprune.data.spans import misplaced

CUT = "lhotse cut trim-to-supervisions makes a cut of each"
KINDS = ("kaldi-fbank", "kaldifeat-fbank", "fbank")  # lhotse's extractors of equal features

Cut = dict[str, Any]

log = logging.getLogger(__name__)


def write_cuts(options: Options, split: str, path: Path, ignore_features: bool) -> None:
    """Write the manifests of a split. If the features of all cuts fit, also write the cuts.

    Args:
        options: The options of all importers.
        split: The name of the split.
        path: The cut manifest.
        ignore_features: Ignore the features, so that stage 2 computes them again.

    Raises:
        UserError: A cut has not exactly one supervision, has neither a recording nor features that
            fit, or has features of another part of the recording. See also
            :func:`~asrprune.data.importers.split.write_entries`.
    """
    problem = "they are to be computed anew" if ignore_features else problem_of(path)
    if problem:
        silent = next((cut["id"] for _, cut in read(path) if not cut.get("recording")), None)
        if silent is not None:
            raise UserError(
                f"{path}: its features cannot be used ({problem}), and {silent} has no recording "
                f"to compute them from. Give cuts with recordings, or with features of {wanted()}"
            )
        log.info("%s: features are computed in stage 2 from the recordings: %s", split, problem)
    else:
        log.info("%s: the features of %s fit and are taken as they are", split, path)
    entries = read_entries(path, options.audio_dir, with_features=not problem)
    write_entries(options, split, entries, CUT, with_cuts=not problem)


def problem_of(path: Path) -> str:
    """Return why the features of a manifest cannot be used as they are.

    Args:
        path: The cut manifest.

    Returns:
        The first cut whose features are missing or of another type, and the difference. Empty: all
        features can be used.

    Raises:
        UserError: All features are of the right type, but the features of a cut do not cover it.
    """
    elsewhere = ""
    for where, cut in read(path):
        if found := misfit(cut):
            return f"{cut['id']} {found}"
        if not elsewhere and (found := misplaced(cut)):
            anew = (
                "have all features computed from the recordings: --ignore-features true"
                if cut.get("recording")
                else "give cuts with recordings"
            )
            elsewhere = (
                f"{where}: the features of {cut['id']} do not cover the cut: {found}. Correct the "
                f"manifest, or {anew}"
            )
    if elsewhere:
        raise UserError(elsewhere)
    return ""


def read(path: Path) -> Iterator[tuple[str, Cut]]:
    """Yield (position, cut) of each cut of a manifest. Each cut has one supervision.

    Raises:
        UserError: The file is missing or damaged, or a cut is of another type. The message names
            the line.
    """
    if not path.is_file():
        raise UserError(f"{explain_missing(path)} does not exist")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    cut = parse_line(line, path, number)
                    where = f"{path}, line {number}"
                    _check(cut, where)
                    yield where, cut
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged ({error})") from error


def _check(cut: Cut, where: str) -> None:
    cut["id"] = id_of(cut["id"], where)
    kind = cut.get("type", "MonoCut" if "supervisions" in cut else "no cut")
    if kind != "MonoCut":
        raise UserError(
            f"{where}: {cut['id']} is a {kind}, and recipes take cuts of one channel of one "
            "recording (MonoCut)"
        )
    count = len(cut.get("supervisions") or [])
    if count != 1:
        raise UserError(
            f"{where}: the cut {cut['id']} has {count} supervisions, and an utterance has one. "
            f"Make a cut of each: lhotse cut trim-to-supervisions --discard-overlapping IN OUT"
        )
    if missing := [name for name in ("start", "duration") if name not in cut]:
        raise UserError(f"{where}: the cut {cut['id']} has no {missing[0]}")
    if not cut.get("recording") and not cut.get("features"):
        raise UserError(f"{where}: the cut {cut['id']} has neither a recording nor features")


def misfit(cut: Cut) -> str:
    """Return how a cut's features differ in type from the features of recipes; empty if not."""
    features = cut.get("features")
    if not features:
        return "has none"
    for what, found, right in (
        ("mel bins", features["num_features"], FEATURES["num_filters"]),
        ("s from frame to frame", features["frame_shift"], 0.01),
        ("Hz", features["sampling_rate"], FEATURES["sampling_rate"]),
    ):
        if found != right:
            return f"has {found} {what}, not {right}"
    if features["type"] not in KINDS:
        return f"has features of the kind {features['type']}, not {KINDS[0]}"
    return ""


def _archive(name: str, lead: Callable[[str, str], str], whose: str, recorded: bool) -> str:
    """Return the path of an archive of features from here.

    Args:
        name: The path of the archive in the manifest.
        lead: Turns a type of file and a path in the manifest into a path from here.
        whose: The cut with these features, for a message.
        recorded: Whether there is audio to compute the features from.

    Raises:
        UserError: The archive is not there.
    """
    try:
        path = lead("features", name)
        if os.path.exists(path):
            return path
        reason = f"{path} does not exist"
    except UserError as error:  # a relative path that leads nowhere
        reason = str(error)
    anew = ", or compute them anew from the recordings: --ignore-features true" if recorded else ""
    raise UserError(f"{whose} has features that are not here: {reason}. Copy them there{anew}")


def wanted() -> str:
    """Return a description of the features that recipes use, for a message."""
    return f"{FEATURES['num_filters']} mel bins, 10 ms apart, of {FEATURES['sampling_rate']} Hz"


def read_entries(path: Path, base: Path | None, with_features: bool) -> Iterator[Entry]:
    """Yield the entries of a manifest. Relative paths are changed to be valid from here.

    Args:
        path: The cut manifest.
        base: What relative paths are relative to. None: search for the folder.
        with_features: Whether the entries include the cuts with their features.
    """
    bases: dict[str, Path] = {}  # "audio" or "features" -> what relative paths are relative to
    archives: dict[str, str] = {}  # path in the manifest -> path from here

    def lead(kind: str, name: str) -> str:
        if os.path.isabs(name):
            return name
        if kind not in bases:
            bases[kind] = find_base(path.parent, name) if base is None else base
        return str(bases[kind] / name)

    for where, cut in read(path):
        recording = cut.get("recording") or {}
        for source in recording.get("sources", []):
            if source["type"] == "file":
                source["source"] = lead("audio", source["source"])
        if with_features:
            name = cut["features"]["storage_path"]
            if name not in archives:
                archives[name] = _archive(name, lead, f"{where}: {cut['id']}", bool(recording))
            cut["features"]["storage_path"] = archives[name]
        supervision = dict(cut["supervisions"][0])
        supervision["id"] = cut["id"]
        supervision["recording_id"] = recording.get("id", supervision.get("recording_id"))
        # relative to the recording, as in a manifest of supervisions
        supervision["start"] = round(cut["start"] + supervision.get("start", 0.0), 8)
        supervision["channel"] = cut.get("channel", 0)
        kept = cut if with_features else {}
        yield Entry(where, cut["id"], recording, supervision, kept, loose=True)
