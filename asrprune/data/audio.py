"""Compute and store the filter banks of one part of a split; a worker does one part at a time."""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from lhotse import (
    Fbank,
    FbankConfig,
    Features,
    LilcomChunkyWriter,
    MonoCut,
    Recording,
    SupervisionSegment,
)
from lhotse.audio.recording import assert_and_maybe_fix_num_samples
from lhotse.augmentation import AudioTransform
from lhotse.utils import fastcopy

from asrprune.base.errors import UserError
from asrprune.base.files import atomic_path, write_text
from asrprune.data.diagnosis import UNUSABLE, Unusable
from asrprune.data.header import read_header
from asrprune.data.manifests import to_line, write_lines
from asrprune.data.names import file_in_other_form

# the feature settings of sherpa-onnx, so that sherpa-onnx can run a trained model
FEATURES: dict[str, Any] = {
    "sampling_rate": 16000,
    "num_filters": 80,
    "dither": 0.0,
    "snip_edges": False,
}
WINDOW = 400  # samples of a frame's window: 25 ms
CHANGED = (
    "If the file was changed, run stage 1 (manifests) again; else copy or download the file again"
)
LOSSLESS = (".flac", ".wav")  # formats whose header gives the exact number of samples


class BadAudio(Exception):
    """Raised when the audio of an utterance cannot be used. The message says why.

    Args:
        what: What was found.
        mend: What the user can do, as a sentence without its full stop.
    """

    def __init__(self, what: str, mend: str):
        super().__init__(what)
        self.mend = mend


@dataclass(frozen=True)
class PartResult:
    """The number of cuts of a part, their seconds, and whether an earlier run made the part."""

    cuts: int
    seconds: float
    kept: bool


def extract_part(
    part: tuple[str, list[tuple[bytes, bytes]]],
    advance: Callable[[int], None],
    *,
    folder: Path,
    speeds: tuple[float, ...],
    skip_bad_audio: bool,
) -> PartResult:
    """Compute the features of a part, and write the part's files.

    First ``<name>.lca`` (features) is written, then ``<name>.jsonl.gz`` (cuts). A part that an
    earlier run finished is kept. A finished part without its unreadable cuts is kept only with
    ``skip_bad_audio``.

    Args:
        part: The name of the part, and (supervision line, recording line) of each utterance.
        advance: Called with the number of cuts that are done, copies included.
        folder: The folder to write to.
        speeds: Speed factors of the copies that follow each cut.
        skip_bad_audio: List unreadable cuts in ``<name>.unreadable.tsv`` instead of raising.

    Raises:
        UserError: Audio is unreadable, or the disk is full.
    """
    name, utterances = part
    manifest, listed = folder / f"{name}.jsonl.gz", folder / f"{name}.unreadable.tsv"
    archive = archive_of(manifest)
    whole = manifest.exists() and archive.exists()
    if whole and (skip_bad_audio or not listed.exists()):
        advance(len(utterances) * (1 + len(speeds)))
        durations = _durations(manifest)
        return PartResult(len(durations), sum(durations), kept=True)
    manifest.unlink(missing_ok=True)
    listed.unlink(missing_ok=True)
    extractor = Fbank(FbankConfig(**FEATURES))
    lines, bad, seconds = [], [], 0.0
    with atomic_path(archive) as temporary, LilcomChunkyWriter(temporary) as writer:
        for lines_of_utterance in utterances:
            cut = make_cut(*lines_of_utterance)
            try:
                features = [
                    (copy, extract(copy, samples, extractor))
                    for copy, samples in load_copies(cut, speeds)
                ]
            except BadAudio as error:
                if not skip_bad_audio:
                    raise UserError(
                        f"cannot use the audio of cut {cut.id}: {audio_file(cut)}: {error}. "
                        f"{error.mend}; or leave such cuts out with --bad-audio skip"
                    ) from error
                row = (cut.id, audio_file(cut), str(error))
                bad.append("\t".join(" ".join(field.split()) for field in row))
                features = []
            for copy, matrix in features:
                key = writer.write(copy.id, matrix)
                lines.append(to_line(stored(copy, matrix, archive, key).to_dict()))
                seconds += copy.duration
            advance(1 + len(speeds))
    if bad:
        write_text(listed, "\n".join(bad) + "\n")
    with write_lines(manifest) as file:
        file.writelines(lines)
    return PartResult(len(lines), seconds, kept=False)


def archive_of(manifest: Path) -> Path:
    """Return the path of the feature archive that belongs to a part's cut manifest."""
    return manifest.with_name(manifest.name.replace(".jsonl.gz", ".lca"))


def make_cut(supervision_line: bytes, recording_line: bytes) -> MonoCut:
    """Return the cut of an utterance.

    The cut spans the supervision, but ends with the recording. A supervision that reaches beyond
    its recording keeps its own duration, so that the validation can detect the mistake.
    """
    recording = Recording.from_dict(json.loads(recording_line))
    supervision = SupervisionSegment.from_dict(json.loads(supervision_line))
    start = min(max(supervision.start, 0.0), recording.duration)
    end = min(supervision.end, recording.duration)
    channels = supervision.channel
    return MonoCut(
        id=supervision.id,
        start=start,
        duration=round(max(end - start, 0.0), ndigits=8),
        channel=channels if isinstance(channels, int) else channels[0],
        supervisions=[fastcopy(supervision, start=round(supervision.start - start, ndigits=8))],
        recording=recording,
    )


def load_copies(cut: MonoCut, speeds: Iterable[float]) -> list[tuple[MonoCut, np.ndarray]]:
    """Return a cut and its copies at other speeds, each with samples (1, N) at the features' rate.

    The samples equal ``cut.resample(rate).perturb_speed(speed).load_audio()``, but the file is
    decoded only once.

    Raises:
        BadAudio: The file is missing, cannot be decoded, or does not hold what its manifest says.
    """
    if cut.duration <= 0:
        raise BadAudio(
            "the supervision has no part of the recording",
            "Correct its start, and run stage 1 again",
        )
    try:
        _check_source(cut.recording)
        samples = cut.load_audio()
    except (MemoryError, ImportError, BadAudio):
        raise
    except Exception as error:  # the decoders' errors have no common class
        raise _explain(cut.recording, error) from error
    if samples.size == 0:
        raise BadAudio("no samples", "Delete the utterance, and run stage 1 again")
    if not np.isfinite(samples).all():
        raise BadAudio("samples that are no finite numbers", "Write the file anew")
    rate = FEATURES["sampling_rate"]
    plain = cut if cut.sampling_rate == rate else cut.resample(rate)
    done = len(cut.recording.transforms or [])
    copies = []
    for copy in (plain, *(plain.perturb_speed(speed) for speed in speeds)):
        changed = samples
        for transform in (copy.recording.transforms or [])[done:]:
            if not isinstance(transform, AudioTransform):
                transform = AudioTransform.from_dict(transform)
            changed = transform(changed, copy.sampling_rate)
        changed = assert_and_maybe_fix_num_samples(
            changed, offset=copy.start, duration=copy.duration, recording=copy.recording
        )
        if changed.shape[1] < WINDOW:
            raise BadAudio(
                f"{changed.shape[1]} samples, less than a window of 25 ms",
                "Delete the utterance, and run stage 1 again",
            )
        copies.append((copy, changed))
    return copies


def extract(cut: MonoCut, samples: np.ndarray, extractor: Fbank) -> np.ndarray:
    """Return the log-mel energies (T, 80) of samples; T is duration / 10 ms, rounded half up.

    Raises:
        BadAudio: A feature is no finite number.
    """
    features = extractor.extract(samples, cut.sampling_rate)
    if not np.isfinite(features).all():
        raise BadAudio("features that are no finite numbers", "Write the file anew")
    return features


def stored(cut: MonoCut, features: np.ndarray, archive: Path, key: str) -> MonoCut:
    """Return the cut with a reference to its features in the archive."""
    reference = Features(
        type=Fbank.name,
        num_frames=features.shape[0],
        num_features=features.shape[1],
        frame_shift=0.01,
        sampling_rate=cut.sampling_rate,
        start=cut.start,
        duration=cut.duration,
        storage_type=LilcomChunkyWriter.name,
        storage_path=str(archive),
        storage_key=key,
        recording_id=cut.recording_id,
        channels=cut.channel,
    )
    return fastcopy(cut, features=reference)


def audio_file(cut: MonoCut) -> str:
    """Return the file of a cut's audio, or another source of the audio, such as a command."""
    return str(cut.recording.sources[0].source)


def _check_source(recording: Recording) -> None:
    """Check that the files of a recording exist, and that lossless files match the manifest.

    lhotse pads a file that is at most half a second too short, but a lossless file that is too
    short is damaged. A FLAC header gives the length before any cut-off, but libsndfile decodes no
    FLAC file that is cut off. libsndfile itself checks the length in a WAV header against the size
    of the file.

    Raises:
        BadAudio: A file is missing, or has another sampling rate or length.
    """
    for source in recording.sources:
        if source.type != "file":
            continue
        if not os.path.exists(source.source):
            if other := file_in_other_form(source.source):
                reason = f"no such file, but one of the same letters in another form: {other!a}"
                raise BadAudio(reason, mend="Rename the file, or write its name so in the manifest")
            raise BadAudio("no such file", "Put it there")
        if str(source.source).lower().endswith(LOSSLESS) and not recording.transforms:
            found = soundfile.info(source.source)
            if found.samplerate != recording.sampling_rate:
                raise BadAudio(f"{found.samplerate} Hz, not {recording.sampling_rate} Hz", CHANGED)
            if found.frames != recording.num_samples:
                raise BadAudio(f"{found.frames} samples, not {recording.num_samples}", CHANGED)


def _explain(recording: Recording, error: Exception) -> BadAudio:
    """Return what is wrong with a file, in the words of stage 1, or else of the decoder."""
    for source in recording.sources:
        if source.type == "file":
            try:
                read_header(source.source)
            except Unusable as found:
                return BadAudio(f"{UNUSABLE[found.reason]} ({found})", found.mend)
            except OSError:  # the decoder's error says more
                break
    return BadAudio(_reason(error), CHANGED)


def _reason(error: Exception) -> str:
    """Return the informative line of an error.

    lhotse lists an error for each decoder. The first error is used, because lhotse tries the
    preferred decoder first.
    """
    if found := re.search(r"diff=(-?\d+), audio\.shape=\(\d+, (\d+)\)", str(error)):
        difference, there = map(int, found.groups())
        return f"{there} samples, not {there + difference}"
    lines = str(error).splitlines() or [type(error).__name__]
    for line in lines:
        if line.startswith("Exception #0"):
            return line.rpartition("'>: ")[2].removeprefix("Error : ").rstrip(". ")
    return lines[0].rstrip(". ")


def _durations(manifest: Path) -> list[float]:
    with gzip.open(manifest, "rb") as file:
        return [json.loads(line)["duration"] for line in file]
