"""Decode features by greedy search with exported networks in onnxruntime, as sherpa-onnx does.

Each call decodes one utterance, because int8 computes its range from all activations of a call. In
a stream, only whole chunks are decoded. Silence after the speech completes the last chunk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from asrprune.decoding.hypothesis import BLANK

if TYPE_CHECKING:
    import onnx
    import onnxruntime

NONE = -1  # stands for the symbols before the first one


@dataclass(frozen=True)
class Decoded:
    """Hold the result of a search in one utterance."""

    tokens: list[int]
    contexts: np.ndarray  # (frames, joiner_dim): the predictor's output at each encoder frame
    log_probs: np.ndarray  # (frames, vocab_size): log-probabilities at each encoder frame


def open_session(proto: "onnx.ModelProto") -> "onnxruntime.InferenceSession":
    """Load a network into onnxruntime, with as many threads as torch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


class OnnxDecoder:
    """Run an encoder, a predictor (in ONNX files: decoder) and a joiner in onnxruntime."""

    def __init__(
        self,
        sessions: Mapping[str, "onnxruntime.InferenceSession"],
        metadata: Mapping[str, Mapping[str, Any]],
        unk_id: int | None = None,
    ):
        """Prepare to decode.

        Args:
            sessions: the networks ``encoder``, ``decoder`` and ``joiner``.
            metadata: the metadata of the networks, see `asrprune.export.onnx_parts.Part`.
            unk_id: a symbol that is never emitted, like blank.
        """
        self._encoder, self._decoder, self._joiner = (
            sessions[name] for name in ("encoder", "decoder", "joiner")
        )
        self._numbers = metadata["encoder"]
        self._context: int = metadata["decoder"]["context_size"]
        self._silent = (BLANK, unk_id)

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Encode one utterance: features (T, 80) -> encoder frames (T', joiner_dim)."""
        if "T" not in self._numbers:
            inputs = {"x": features[None], "x_lens": np.array([len(features)])}
            h, lengths = self._encoder.run(None, inputs)
            return h[0, : lengths[0]]
        numbers, pieces = self._numbers, []
        size, step = numbers["T"], numbers["decode_chunk_len"]
        layers, dim = numbers["num_encoder_layers"], numbers["encoder_dim"]
        past = np.zeros((layers, numbers["left_context"], 1, dim), np.float32)
        history = np.zeros((layers, numbers["cnn_module_kernel"] - 1, 1, dim), np.float32)
        for start in range(0, len(features) - size + 1, step):
            inputs = {
                "x": features[None, start : start + size],
                "past": past,
                "history": history,
                "processed_frames": np.array([start]),
            }
            h, past, history = self._encoder.run(None, inputs)
            pieces.append(h[0])
        return np.concatenate(pieces) if pieces else np.zeros((0, 1), np.float32)

    def search(self, frames: np.ndarray) -> Decoded:
        """Emit the most probable symbol, or none, of each encoder frame (T', joiner_dim)."""
        symbols = [NONE] * (self._context - 1) + [BLANK]
        context, contexts, log_probs = self._predict(symbols), [], []
        for frame in frames:
            contexts.append(context)
            log_probs.append(self._join(frame, context))
            best = int(log_probs[-1].argmax())
            if best not in self._silent:
                symbols.append(best)
                context = self._predict(symbols)
        return Decoded(symbols[self._context :], _stack(contexts), _stack(log_probs))

    def log_probs(self, frames: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        """Return the symbols' log-probabilities (T', vocab_size) on the path of another decoder."""
        pairs = zip(frames, contexts, strict=True)
        return _stack([self._join(frame, context) for frame, context in pairs])

    def _predict(self, symbols: list[int]) -> np.ndarray:
        return self._decoder.run(None, {"y": np.array([symbols[-self._context :]])})[0][0]

    def _join(self, frame: np.ndarray, context: np.ndarray) -> np.ndarray:
        inputs = {"encoder_out": frame[None], "decoder_out": context[None]}
        scores = self._joiner.run(None, inputs)[0][0].astype(np.float64)
        scores -= scores.max()
        return scores - np.log(np.exp(scores).sum())


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    return np.stack(rows) if rows else np.zeros((0, 1))
