"""Load the features of a cut, or compute them from its audio, with clear errors if this fails."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lhotse import Fbank, FbankConfig, Features
from lhotse.cut import Cut, MixedCut, MonoCut
from lhotse.features.io import get_memory_writer
from lhotse.utils import fastcopy

from asrprune.base.errors import UserError
from asrprune.data.audio import FEATURES
from asrprune.data.spans import Span, misplaced, span_of

LATE = 1e-4  # seconds; lhotse itself reads features that begin up to 1e-3 s after their cut


def load_features(cut: Cut) -> torch.Tensor:
    """Return the features (T, F) of a cut or of a mixture of cuts, float32.

    Raises:
        UserError: The features cannot be read. The message names the cut and the archive. In a
            mixture, the message names the cut that failed.
    """
    if not cut.has_features:
        raise UserError(f"cut {cut.id} has no features; the features stage (2) adds them")
    try:
        matrix = _whole(cut).load_features()
        if isinstance(cut, MonoCut) and len(matrix) != cut.num_frames:
            raise ValueError(f"{len(matrix)} frames, not {cut.num_frames}")
        return torch.from_numpy(matrix).float()
    except MemoryError:
        raise
    except Exception as error:  # each storage type has errors of its own
        if isinstance(cut, MixedCut):
            for track in cut.tracks:
                load_features(track.cut)  # raises for the cut that failed
            raise
        reason = str(error).partition("\n")[0]  # lhotse appends the whole cut
        raise UserError(
            f"cut {cut.id}: its features cannot be read from {cut.features.storage_path} "
            f"({reason}). If it came with --cuts: --ignore-features true. Else delete it and the "
            "split's cut manifest beside its folder, and run the features stage (2), which makes "
            "only what is missing"
        ) from error


def _whole(cut: Cut) -> Cut:
    """Return the cut with as many frames as its duration has: frames at its ends are repeated.

    Kaldi's features (snip_edges=true) end two frames early, and lhotse itself adds only one frame.
    lhotse refuses features that begin a few milliseconds after their cut.

    Raises:
        ValueError: The features do not cover the cut.
    """
    if isinstance(cut, MixedCut):
        tracks = [fastcopy(track, cut=_whole(track.cut)) for track in cut.tracks]
        return fastcopy(cut, tracks=tracks)
    if not isinstance(cut, MonoCut) or not cut.has_features:
        return cut
    features, entry = cut.features, _entry(cut)
    span = span_of(entry)
    late = features.start > cut.start + LATE
    if span.fits and not late and span.after <= 1:
        return cut
    if problem := misplaced(entry):
        raise ValueError(problem)
    writer = get_memory_writer("memory_raw")()
    features = fastcopy(
        features,
        start=cut.start,
        duration=cut.duration,
        num_frames=span.count,
        storage_type=writer.name,
        storage_path="",
        storage_key=writer.write("", read_span(features, span)),
    )
    return fastcopy(cut, features=features)


def _entry(cut: MonoCut) -> dict[str, Any]:
    """Return the fields of a manifest entry that :func:`span_of` needs."""
    return {"start": cut.start, "duration": cut.duration, "features": vars(cut.features)}


def read_span(features: Features, span: Span) -> np.ndarray:
    """Read the features of a cut, and repeat the frames at its ends where frames are missing.

    Args:
        features: The stored features.
        span: The frames that the cut reads. The span must fit.

    Returns:
        A matrix (span.count, F), if the archive holds what the manifest says.
    """
    if span.whole:
        matrix = features.load()
    else:
        shift = features.frame_shift
        start = features.start + max(span.first, 0) * shift
        matrix = features.load(start=start, duration=span.present * shift)
    return np.pad(matrix, ((span.before, span.after), (0, 0)), mode="edge")


def compute_features(
    cut: Cut, change: Callable[[torch.Tensor, int], torch.Tensor], hop: float = 0.01
) -> torch.Tensor:
    """Return the features (T, F) of a cut's audio after a change of its samples, float32.

    Args:
        cut: A cut with a recording.
        change: Gets the samples (N,) and the samples per frame shift. Returns the changed samples.
        hop: Frame shift in seconds.

    Raises:
        UserError: The audio cannot be read.
    """
    try:
        samples = torch.from_numpy(cut.load_audio()[0])
    except MemoryError:
        raise
    except Exception as error:  # each format has errors of its own
        reason = str(error).partition("\n")[0]
        raise UserError(f"cut {cut.id}: its audio cannot be read ({reason})") from error
    samples = change(samples, round(hop * cut.sampling_rate))
    extractor = Fbank(FbankConfig(**FEATURES))
    return torch.from_numpy(extractor.extract(samples.numpy(), cut.sampling_rate)).float()
