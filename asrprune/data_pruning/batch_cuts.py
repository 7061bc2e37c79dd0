"""Find the cuts of a batch in the index, joined cuts included, and compute their scores."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from asrprune.base.errors import UserError

Values = Sequence[float] | np.ndarray | torch.Tensor


# What a score needs besides losses and num_tokens.
_NEEDED = {"loss_per_frame": ["num_frames"], "el2n": ["el2n"]}


class Found(NamedTuple):
    """The m parts of a batch's B cuts that the index knows.

    A plain cut is one part. Each track of a joined (concatenated or mixed) cut is one part.
    """

    row: np.ndarray  # (m,) int64: position of the part's cut in the batch
    line: np.ndarray  # (m,) int64: line or utterance of the part in the index
    share: np.ndarray  # (m,) float64: share of the cut's known duration; a cut's shares sum to 1
    unknown: list[str]  # ids of cuts of which the index knows no part


def find_in_batch(cuts: Sequence[Any], find: Callable[[Sequence[str]], np.ndarray]) -> Found:
    """Look up the cuts of a batch in the index.

    `CutConcatenate` and mixing give their results new ids. If the index does not know a cut, the
    cuts of its tracks are looked up instead. Unknown tracks, such as pauses and noise, are skipped.

    Args:
        cuts: (B,) ids, or lhotse cuts.
        find: function from ids to their lines, such as `CutIndex.find_cuts`; -1: unknown id.

    Returns:
        The known parts, and the ids of the unknown cuts.
    """
    ids = [cut if isinstance(cut, str) else cut.id for cut in cuts]
    lines = find(ids)
    row = np.flatnonzero(lines >= 0)
    if len(row) == len(ids):
        return Found(row, lines, np.ones(len(row)), [])
    rows, found, shares = [row], [lines[row]], [np.ones(len(row))]
    unknown = []
    for at in np.flatnonzero(lines < 0).tolist():
        parts = [track.cut for track in getattr(cuts[at], "tracks", None) or ()]
        inner = find([part.id for part in parts])
        known = np.flatnonzero(inner >= 0)
        if not len(known):
            unknown.append(ids[at])
            continue
        seconds = np.array([parts[number].duration for number in known])
        rows.append(np.full(len(known), at))
        found.append(inner[known])
        shares.append(seconds / seconds.sum())
    return Found(np.concatenate(rows), np.concatenate(found), np.concatenate(shares), unknown)


def batch_scores(
    score: str, found: Found, count: int, given: dict[str, Values | None]
) -> np.ndarray:
    """Return the scores (m,) float64 of the known parts of a batch of B cuts.

    Args:
        score: name of the score, as in ``data_pruning.score``.
        found: the known parts, from `find_in_batch`.
        count: B, the number of cuts.
        given: losses and num_tokens (B,), and num_frames or el2n (B,) if the score needs them.

    Raises:
        UserError: numbers that the score needs are missing, or are not one for each cut.
    """
    names = ["losses", "num_tokens", *_NEEDED.get(score, ())]
    values = {name: _numbers(name, given[name], count, score)[found.row] for name in names}
    if score == "loss":
        return values["losses"] / (values["num_tokens"] + 1)
    if score == "loss_sum":
        return values["losses"] * found.share
    if score == "loss_per_frame":
        return values["losses"] / np.maximum(values["num_frames"], 1)
    return values["el2n"]


def _numbers(name: str, values: Values | None, count: int, score: str) -> np.ndarray:
    """Return the numbers of a batch as an array.

    Raises:
        UserError: the numbers are missing, or are not one for each cut.
    """
    if values is None:
        raise UserError(f"data_pruning.score={score} needs update(..., {name}=...)")
    if isinstance(values, torch.Tensor):
        values = values.detach().double().cpu().numpy()
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (count,):
        what = "the loss" if name == "losses" else "a number"
        raise UserError(
            f"update(...) got {count} cuts, but {name} of shape {values.shape}. Give {what} of "
            'each cut. A loss must not be summed before: use reduction="none".'
        )
    return values
