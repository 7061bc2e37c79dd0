"""How many encoder frames an encoder makes of feature frames, as a table of its own numbers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from asrprune.errors import UserError

LONGEST = 1 << 18  # feature frames that the table covers: 43 minutes of 10 ms


class EncoderFrames:
    """Feature frames of an utterance to encoder frames, and back.

    The table is made once, of the encoder's own ``output_lengths``. The encoder itself is not kept,
    so that a pickled copy in a loader worker stays small.
    """

    def __init__(self, output_lengths: Callable[[Tensor], Tensor]):
        """Make the table.

        Args:
            output_lengths: (N,) int64 feature frames -> (N,) encoder frames, as every encoder of
                this toolkit has it. It may be any function of a tensor on the CPU.

        Raises:
            UserError: what it returns is no number for each utterance.
        """
        lengths = torch.as_tensor(output_lengths(torch.arange(LONGEST + 1, device="cpu")))
        if lengths.shape != (LONGEST + 1,):
            raise UserError(
                f"output_lengths returned a tensor of shape {tuple(lengths.shape)} for "
                f"{LONGEST + 1} utterances. It must return the encoder frames of each."
            )
        self._lengths = np.maximum(lengths.cpu().numpy().astype(np.int64), 0)
        # the fewest that this utterance or any longer one gives
        self._at_least = np.minimum.accumulate(self._lengths[::-1])[::-1].copy()

    def of(self, num_frames: np.ndarray | int) -> np.ndarray:
        """Return the encoder frames of utterances of so many feature frames, (N,) int64.

        Utterances of more than `LONGEST` frames count as that long.
        """
        return self._lengths[np.clip(num_frames, 0, LONGEST)]

    def needed(self, encoder_frames: np.ndarray | int) -> np.ndarray:
        """Return the fewest feature frames that give so many encoder frames, (N,) int64.

        Any longer utterance gives as many, too. More than `LONGEST` is returned where no utterance
        in the table gives so many: nothing may be dropped then.
        """
        wanted = np.asarray(encoder_frames, dtype=np.int64)  # of another type: the table is copied
        return self._at_least.searchsorted(wanted, side="left")
