"""Cut a transducer into the three networks that sherpa-onnx runs, with the metadata that it reads.

The networks follow the interface of sherpa-onnx for offline models. Streaming networks follow the
interface for models of type ``conformer``. The projections to the joiner's dimension belong to the
encoder and to the predictor (in sherpa-onnx: decoder). The normalisation of features belongs to the
encoder.

The state of a stream is two tensors with the streams on axis 2. The first tensor holds the keys and
values of each layer's left context. The second tensor holds the last input frames of each layer's
convolution. sherpa-onnx gives both tensors the width of the layers. If all heads together are
narrower, the first tensor has fewer rows. Its numbers fill the rows one after the other. The last
row may have some unused numbers.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.transducer.model import Transducer
from asrprune.transducer.predictor import Stateless
from asrprune.transducer.streaming import Past, newest


@dataclass(frozen=True)
class Part:
    """Hold a network with an example of its inputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    batch_axes: dict[str, int]  # axis of the batch in each input
    time_axes: dict[str, int]  # axis of time in the inputs of any length
    metadata: dict[str, int | str]


class OfflineEncoder(nn.Module):
    """Encode whole utterances: ``x`` (N, T, 80), ``x_lens`` (N,) -> (N, T', joiner_dim), (N,)."""

    def __init__(self, model: Transducer):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Return encoder frames (N, T', joiner_dim) and their numbers (N,)."""
        h, h_lens = self.model.encode(x, x_lens)
        return self.model.joiner.project_encoder(h), h_lens


class StreamingEncoder(nn.Module):
    """Encode a chunk and the frames that it looks ahead to: ``x`` (N, T, 80).

    ``processed_frames`` (N,) frames of each stream came before the chunk. The states are ``past``
    (layers, rows, N, D) and ``history`` (layers, kernel_size - 1, N, D). There are 2 * left context
    rows, or fewer for narrow heads. Without convolutions, ``history`` is one row that does not
    change.

    A runtime only carries the states from chunk to chunk. So ``past`` has the order in which
    attention reads it: for a stream and a layer, (keys and values, heads, left context, head_dim).
    For one stream, nothing has to be transposed.
    """

    def __init__(self, model: Transducer):
        super().__init__()
        self.model = model

    def forward(
        self, x: Tensor, past: Tensor, history: Tensor, processed_frames: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return encoder frames (N, T', joiner_dim), and the new states."""
        encoder, (layers, rows) = self.model.encoder, past.shape[:2]
        _, used, heads = _past_of(encoder)
        numbers = past.permute(2, 0, 1, 3).flatten(1)
        spare = rows * encoder.output_dim - used
        if spare:
            numbers = numbers.unflatten(1, (layers, -1))[..., :used].flatten(1)
        size = 2 * layers * heads, encoder.left_context, encoder.head_dim
        parts = numbers.unflatten(1, size).split(heads, dim=1)
        seen = history[:, : encoder.history].transpose(1, 2).unbind(0)
        done = processed_frames // encoder.subsampling
        h, new = encoder.chunk(self.model.normalise(x), Past(parts[::2], parts[1::2], seen), done)
        parts = [part for pair in zip(new.keys, new.values, strict=True) for part in pair]
        kept = newest(encoder, torch.cat(parts, dim=1), encoder.left_context)
        numbers = kept.flatten(1)
        if spare:
            numbers = F.pad(numbers.unflatten(1, (layers, used)), (0, spare)).flatten(1)
        past = numbers.unflatten(1, (layers, rows, encoder.output_dim)).permute(1, 2, 0, 3)
        if encoder.history:
            frames = newest(encoder, torch.stack(tuple(new.history)), encoder.history)
            history = frames.transpose(1, 2)
        return self.model.joiner.project_encoder(h), past, history


class Predictor(nn.Module):
    """Predict from the last symbols ``y`` (N, context_size), -1 for none -> (N, joiner_dim)."""

    def __init__(self, model: Transducer):
        super().__init__()
        self.predictor, self.joiner = model.predictor, model.joiner

    def forward(self, y: Tensor) -> Tensor:
        """Return the projected outputs (N, joiner_dim)."""
        return self.joiner.project_predictor(self.predictor.mix(y).squeeze(1))


class Joiner(nn.Module):
    """Join encoder frames and predictor outputs: (N, joiner_dim) each -> (N, vocab_size)."""

    def __init__(self, model: Transducer):
        super().__init__()
        self.joiner = model.joiner

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        """Return the scores (N, vocab_size) of symbols."""
        return self.joiner(encoder_out, decoder_out)


def cut(model: Transducer) -> dict[str, Part]:
    """Return the parts of a model in evaluation mode: encoder, decoder and joiner.

    Raises:
        UserError: sherpa-onnx cannot run the model's predictor, or cannot hold its encoder's state.
    """
    predictor = model.predictor
    if not isinstance(predictor, Stateless):
        raise UserError(
            f"the predictor {type(predictor).__name__} cannot be exported: sherpa-onnx knows "
            "those that see the last symbols. Train with "
            "model.predictor=asrprune.transducer.predictor:stateless"
        )
    streaming = getattr(model.encoder, "streaming", False)
    joiner_dim = model.joiner.output.in_features
    context = torch.zeros(2, predictor.context_size, dtype=torch.int64)
    return {
        "encoder": _streaming(model) if streaming else _offline(model),
        "decoder": Part(
            Predictor(model).eval(),
            {"y": context},
            ("decoder_out",),
            {"y": 0},
            {},
            {"context_size": predictor.context_size, "vocab_size": model.vocab_size},
        ),
        "joiner": Part(
            Joiner(model).eval(),
            {name: torch.zeros(2, joiner_dim) for name in ("encoder_out", "decoder_out")},
            ("logit",),
            {"encoder_out": 0, "decoder_out": 0},
            {},
            {"joiner_dim": joiner_dim},
        ),
    }


def _offline(model: Transducer) -> Part:
    x = torch.zeros(2, 150, model.feature_mean.numel())
    return Part(
        OfflineEncoder(model).eval(),
        {"x": x, "x_lens": torch.tensor([150, 121])},
        ("encoder_out", "encoder_out_lens"),
        {"x": 0, "x_lens": 0},
        {"x": 1},
        {"model_type": "conformer", "version": "1", "model_author": "asrprune"},
    )


def _streaming(model: Transducer) -> Part:
    encoder = model.encoder
    state = encoder.initial_state(2, torch.device("cpu"), torch.float32)
    attributes = (
        "chunk", "head_dim", "attention_width", "history", "left_context", "chunk_frames",
        "lookahead_frames", "subsampling", "output_dim",
    )  # fmt: skip
    if not all(hasattr(encoder, name) for name in attributes) or [
        getattr(part, "ndim", 0) for part in state
    ] != [4, 4, 4, 1]:
        raise UserError(
            f"the encoder {type(encoder).__name__} cannot be exported for streaming: it is "
            "no asrprune.transducer.streaming.ChunkEncoder, whose state sherpa-onnx has a place for"
        )
    if not encoder.left_context:
        raise UserError(
            "an encoder without left context cannot be exported for streaming: sherpa-onnx keeps "
            "one. Train with left_context_length of at least 1"
        )
    keys = state[0]
    layers, dim = keys.shape[1], encoder.output_dim
    rows = _past_of(encoder)[0]
    window = encoder.chunk_frames + encoder.lookahead_frames
    history = max(encoder.history, 1)
    return Part(
        StreamingEncoder(model).eval(),
        {
            "x": torch.zeros(2, window, model.feature_mean.numel()),
            "past": torch.zeros(layers, rows, 2, dim),
            "history": torch.zeros(layers, history, 2, dim),
            "processed_frames": torch.tensor([0, encoder.chunk_frames]),
        },
        ("encoder_out", "new_past", "new_history"),
        {"x": 0, "past": 2, "history": 2, "processed_frames": 0},
        {},
        {
            "model_type": "conformer",
            "version": "1",
            "model_author": "asrprune",
            "num_encoder_layers": layers,
            "T": window,
            "decode_chunk_len": encoder.chunk_frames,
            "left_context": rows,
            "encoder_dim": dim,
            "pad_length": encoder.lookahead_frames,
            "cnn_module_kernel": history + 1,
        },
    )


def _past_of(encoder: nn.Module) -> tuple[int, int, int]:
    """Return a layer's rows in ``past``, how many numbers of the rows are used, and its heads."""
    used = 2 * encoder.left_context * encoder.attention_width
    heads = encoder.attention_width // encoder.head_dim
    return -(-used // encoder.output_dim), used, heads
