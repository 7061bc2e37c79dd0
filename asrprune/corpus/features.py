"""Stored features of a cut as a tensor, or one clear message when they cannot be read."""

import torch
from lhotse.cut import Cut, MixedCut

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
