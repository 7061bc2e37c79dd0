"""Features of a cut, stored or of its audio, or one clear message why there are none."""

from collections.abc import Callable

import torch
from lhotse import Fbank, FbankConfig
from lhotse.cut import Cut, MixedCut

from asrprune.corpus.audio import FEATURES
from asrprune.errors import UserError


def load_features(cut: Cut) -> torch.Tensor:
    """Features (T, F) of a cut or of a mixture of cuts, float32.

    :raises UserError: they cannot be read; names the cut, of a mixture the one that is to blame,
        and the archive.
    """
    if not cut.has_features:
        raise UserError(f"cut {cut.id} has no features; the features stage (2) adds them")
    try:
        return torch.from_numpy(cut.load_features()).float()
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
            f"({reason}). Delete that archive and the split's cut manifest beside its folder, and "
            "run the features stage (2), which makes only what is missing"
        ) from error


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
