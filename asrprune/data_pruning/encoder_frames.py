"""Convert feature frames to encoder frames, and back, by a table of the encoder's own numbers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from asrprune.base.errors import UserError

LONGEST = 1 << 18  # feature frames that the table covers: 43 minutes of 10 ms frames


class EncoderFrames:
    """Converts the feature frames of an utterance to encoder frames, and back.

    The table is made once, with the encoder's own ``output_lengths``. The encoder itself is not
    kept, so that a pickled copy in a loader worker stays small.
    """

    def __init__(self, output_lengths: Callable[[Tensor], Tensor]):
        """Make the table.

        Args:
            output_lengths: function from (N,) int64 feature frames to (N,) encoder frames, on the
                CPU. Every encoder of this toolkit has such a method.

        Raises:
            UserError: ``output_lengths`` does not return one number for each utterance.
        """
        lengths = torch.as_tensor(output_lengths(torch.arange(LONGEST + 1, device="cpu")))
        if lengths.shape != (LONGEST + 1,):
            raise UserError(
                f"output_lengths returned a tensor of shape {tuple(lengths.shape)} for "
                f"{LONGEST + 1} utterances. It must return one number of encoder frames for each "
                "utterance."
            )
        self._lengths = np.maximum(lengths.cpu().numpy().astype(np.int64), 0)
        # the fewest encoder frames of an utterance of this length, or of any longer utterance
        self._at_least = np.minimum.accumulate(self._lengths[::-1])[::-1].copy()

    def of(self, num_frames: np.ndarray | int) -> np.ndarray:
        """Return the encoder frames of utterances of ``num_frames`` feature frames, (N,) int64.

        Utterances of more than `LONGEST` feature frames count as `LONGEST` frames.
        """
        return self._lengths[np.clip(num_frames, 0, LONGEST)]

    def needed(self, encoder_frames: np.ndarray | int) -> np.ndarray:
        """Return the fewest feature frames that give ``encoder_frames`` encoder frames, (N,) int64.

        Every longer utterance also gives at least as many. If no utterance in the table gives
        enough, the result is above `LONGEST`: nothing may be dropped then.
        """
        # the type of the table; with another type numpy would convert the whole table
        wanted = np.asarray(encoder_frames, dtype=np.int64)
        return self._at_least.searchsorted(wanted, side="left")
