"""Encode utterances chunk by chunk, and pass the encoder's state from chunk to chunk."""

from collections.abc import Iterator

from torch import Tensor

from asrprune.base.errors import UserError
from asrprune.transducer.encoder import windows
from asrprune.transducer.model import Transducer


def encode_chunks(model: Transducer, x: Tensor, x_lens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Encode features chunk by chunk, as a live recogniser does.

    The last chunk of an utterance and its look-ahead are padded with zeros (after normalisation).
    An utterance that has ended stays in the batch with length 0 until the longest utterance ends.

    Args:
        model: the model.
        x: features (B, T, F).
        x_lens: feature frames of each utterance (B,) int64.

    Yields:
        ``(h, h_lens)`` for each chunk: ``h`` (B, chunk_frames / subsampling, D), of which the first
        ``h_lens`` (B,) frames are valid. The joined chunks equal the result of `Transducer.encode`.

    Raises:
        UserError: the encoder is offline.
    """
    encoder = model.encoder
    if not getattr(encoder, "streaming", False):
        raise UserError(
            f"the encoder {type(encoder).__name__} is offline: it needs whole utterances. Decode "
            "without --streaming true, or train a streaming encoder, such as "
            "model.encoder=asrprune.transducer.emformer:emformer"
        )
    output_lens = encoder.output_lengths(x_lens)
    state = encoder.initial_state(x.shape[0], x.device, x.dtype)
    done = 0
    pieces = windows(x, x_lens, encoder.chunk_frames, encoder.lookahead_frames)
    for piece, piece_lens in pieces:
        h, state = model.encode_chunk(piece, state, piece_lens)
        yield h, (output_lens - done).clamp(0, h.shape[1])
        done += h.shape[1]
