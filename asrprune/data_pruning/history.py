"""Remember from cycle to cycle when, and how often, each cut was kept."""

from typing import Any

import numpy as np
import torch

from asrprune.base.errors import UserError
from asrprune.data_pruning.index import chunks

_MAXIMUM = np.iinfo(np.uint16).max


class History:
    """How long ago, and how often, each of N cuts was kept. Plans depend on this and on the scores.

    - ``age`` (N,) uint16: number of latest cycles in a row that did not keep the cut
    - ``visits`` (N,) uint16: number of cycles that kept the cut
    - ``frozen`` (N,) bool or None: the cuts that a static policy chose
    """

    def __init__(self, num_cuts: int) -> None:
        self.age, self.visits = np.zeros((2, num_cuts), np.uint16)
        self.frozen: np.ndarray | None = None

    def advance(self, keep: np.ndarray, freeze: bool = False) -> None:
        """Count a cycle.

        Args:
            keep: (N,) bool, the cuts that the cycle kept.
            freeze: whether these cuts are stored as the choice of a static policy.
        """
        for part in chunks(len(keep)):
            kept, age, visits = keep[part], self.age[part], self.visits[part]
            age += age < _MAXIMUM
            age[kept] = 0
            visits += kept & (visits < _MAXIMUM)
        if freeze:
            self.frozen = keep.copy()

    def state_dict(self) -> dict[str, Any]:
        """Return tensors for a checkpoint: 4 bytes per cut, and 1 bit more if ``frozen`` is set."""
        frozen = None if self.frozen is None else torch.from_numpy(np.packbits(self.frozen))
        return {
            "age": torch.from_numpy(self.age.view(np.int16)).clone(),
            "visits": torch.from_numpy(self.visits.view(np.int16)).clone(),
            "frozen": frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: the state, of the same number of cuts.

        Raises:
            UserError: the state has another number of cuts.
        """
        if len(state["age"]) != len(self.age):
            raise UserError(
                f"the saved ages are of {len(state['age'])} cuts, and the training manifest has "
                f"{len(self.age)}. Restore the manifest of the saved state, or train in a new "
                "folder."
            )
        self.age[:] = state["age"].numpy().view(np.uint16)
        self.visits[:] = state["visits"].numpy().view(np.uint16)
        frozen = state["frozen"]
        self.frozen = (
            None
            if frozen is None
            else np.unpackbits(frozen.numpy(), count=len(self.age)).view(bool)
        )
