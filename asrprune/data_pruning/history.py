"""What a run remembers of each cut from cycle to cycle: when, and how often, it was kept."""

from typing import Any

import numpy as np
import torch

from asrprune.data_pruning.index import chunks
from asrprune.errors import UserError

_MOST = np.iinfo(np.uint16).max


class History:
    """State of N cuts that plans are made from, besides the scores.

    - ``age`` (N,) uint16: cycles in a row that a cut was not kept, up to the last one
    - ``visits`` (N,) uint16: cycles in which it was kept
    - ``frozen`` (N,) bool or None: what a static policy chose
    """

    def __init__(self, num_cuts: int) -> None:
        self.age, self.visits = np.zeros((2, num_cuts), np.uint16)
        self.frozen: np.ndarray | None = None

    def advance(self, keep: np.ndarray, freeze: bool = False) -> None:
        """Count a cycle that kept ``keep`` (N,) bool; with ``freeze`` it stays the choice."""
        for part in chunks(len(keep)):
            kept, age, visits = keep[part], self.age[part], self.visits[part]
            age += age < _MOST
            age[kept] = 0
            visits += kept & (visits < _MOST)
        if freeze:
            self.frozen = keep.copy()

    def state_dict(self) -> dict[str, Any]:
        """Tensors for a checkpoint: 4 bytes a cut, and a bit."""
        frozen = None if self.frozen is None else torch.from_numpy(np.packbits(self.frozen))
        return {
            "age": torch.from_numpy(self.age.view(np.int16)).clone(),
            "visits": torch.from_numpy(self.visits.view(np.int16)).clone(),
            "frozen": frozen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Args:
            state: of the same number of cuts.

        Raises:
            UserError: the state has another number of cuts.
        """
        if len(state["age"]) != len(self.age):
            raise UserError(
                f"the saved ages are of {len(state['age'])} cuts, and the training manifest has "
                f"{len(self.age)}"
            )
        self.age[:] = state["age"].numpy().view(np.uint16)
        self.visits[:] = state["visits"].numpy().view(np.uint16)
        frozen = state["frozen"]
        self.frozen = (
            None
            if frozen is None
            else np.unpackbits(frozen.numpy(), count=len(self.age)).view(bool)
        )
