"""Features of a cut, stored or of its audio, or one clear message why there are none."""

from collections.abc import Callable

import numpy as np
import torch
from lhotse import Fbank, FbankConfig
from lhotse.cut import Cut, MixedCut, MonoCut
from lhotse.features.io import get_memory_writer
from lhotse.utils import compute_num_frames, fastcopy

from asrprune.corpus.audio import FEATURES, FRAMES_OFF
from asrprune.errors import UserError


def load_features(cut: Cut) -> torch.Tensor:
    """Features (T, F) of a cut or of a mixture of cuts, float32.

    :raises UserError: they cannot be read; names the cut, of a mixture the one that is to blame,
        and the archive.
    """
    if not cut.has_features:
        raise UserError(f"cut {cut.id} has no features; the features stage (2) adds them")
    try:
        return torch.from_numpy(_whole(cut).load_features()).float()
    except MemoryError:
        raise
    except Exception as error:  # each storage type has errors of its own
        if isinstance(cut, MixedCut):
            for track in cut.tracks:
                load_features(track.cut)  # the one that is to blame raises
            raise
        reason = str(error).partition("\n")[0]  # lhotse appends the whole cut
        raise UserError(
            f"cut {cut.id}: its features cannot be read from {cut.features.storage_path} "
            f"({reason}). If it came with --cuts: --ignore-features true. Else delete it and the "
            "split's cut manifest beside its folder, and run the features stage (2), which makes "
            "only what is missing"
        ) from error


def _whole(cut: Cut) -> Cut:
    """The cut with as many frames as its duration has, the last of them repeated.

    Kaldi's features (snip_edges=true) are two short of it, and lhotse itself mends but one.
    """
    if isinstance(cut, MixedCut):
        tracks = [fastcopy(track, cut=_whole(track.cut)) for track in cut.tracks]
        return fastcopy(cut, tracks=tracks)
    if not isinstance(cut, MonoCut) or not cut.has_features:
        return cut
    features = cut.features
    frames = compute_num_frames(features.duration, features.frame_shift, features.sampling_rate)
    missing = frames - features.num_frames
    if not 1 < missing <= FRAMES_OFF:
        return cut
    matrix = np.pad(features.load(), ((0, missing), (0, 0)), mode="edge")
    writer = get_memory_writer("memory_raw")()
    features = fastcopy(
        features,
        num_frames=frames,
        storage_type=writer.name,
        storage_path="",
        storage_key=writer.write("", matrix),
    )
    return fastcopy(cut, features=features)


def compute_features(
    cut: Cut, change: Callable[[torch.Tensor, int], torch.Tensor], hop: float = 0.01
) -> torch.Tensor:
    """Features (T, F) of a cut's audio after ``change(samples (N,), samples a frame)``, float32.

    :raises UserError: the audio cannot be read.
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
