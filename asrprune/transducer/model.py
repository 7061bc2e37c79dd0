"""Define the transducer: encoder, predictor, joiner, and the simple heads of the pruned loss."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from asrprune.base.errors import UserError
from asrprune.base.factory import build
from asrprune.transducer.encoder import FrameTransform, zero_padding
from asrprune.transducer.joiner import Joiner
from asrprune.transducer.loss import TransducerLoss, transducer_loss
from asrprune.transducer.options import LossOptions, ModelOptions

SIMPLE_HEAD_SCALE = 0.25  # small initial weights: the simple loss starts from nearly equal scores
BLANK_PRIOR = 0.85  # share of blanks among all emissions, at 25 frames and about 4 symbols a second


def build_model(model: ModelOptions, loss: LossOptions, vocab_size: int) -> "Transducer":
    """Return a transducer with new weights from torch's global generator.

    Args:
        model: the options of the model.
        loss: the options of the loss.
        vocab_size: number of symbols, including blank.

    Raises:
        UserError: a factory cannot be imported; an option is unknown or has the wrong type (see
            `asrprune.base.factory`); or the result of a factory is not an encoder or predictor.
    """
    encoder = build("model.encoder", model.encoder, model.num_features, model.encoder_options)
    predictor = build("model.predictor", model.predictor, vocab_size, model.predictor_options)
    for part, name, members in (
        (encoder, model.encoder, ("output_dim", "subsampling", "output_lengths")),
        (predictor, model.predictor, ("output_dim", "initial_state", "step", "select")),
    ):
        missing = [member for member in members if not hasattr(part, member)]
        if missing or not isinstance(part, nn.Module):
            lacks = f"has no {', '.join(missing)}" if missing else "is no nn.Module"
            raise UserError(f"{name!r}: what it returns {lacks}")
    joiner = Joiner(encoder.output_dim, predictor.output_dim, model.joiner_dim, vocab_size)
    return Transducer(encoder, predictor, joiner, loss, model.num_features, vocab_size)


class Transducer(nn.Module):
    """Compute a transducer, with the two linear heads of the simple loss.

    The simple loss determines the prune ranges of the pruned loss. The buffers ``feature_mean`` and
    ``feature_std`` (num_features,) normalise features inside the model. So every user of the model,
    also of an exported model, feeds plain log-mel energies.
    """

    encoder: Any  # an nn.Module and an `Encoder`: no type says both
    predictor: Any  # an nn.Module with the members that `build_model` asks for
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        predictor: nn.Module,
        joiner: Joiner,
        loss_options: LossOptions,
        num_features: int,
        vocab_size: int,
    ):
        super().__init__()
        self.encoder = encoder
        self.predictor = predictor
        self.joiner = joiner
        self.simple_am = nn.Linear(self.encoder.output_dim, vocab_size)
        self.simple_lm = nn.Linear(self.predictor.output_dim, vocab_size)
        with torch.no_grad():
            for head in (self.simple_am, self.simple_lm):
                head.weight.mul_(SIMPLE_HEAD_SCALE)
                head.bias.zero_()
            # Most emissions of a lattice are blanks. The biases start from the share of blanks, so
            # that the first gradients depend on the audio. With zero biases, the first gradients
            # would all move the encoder in the same direction.
            odds = BLANK_PRIOR / (1 - BLANK_PRIOR) * (vocab_size - 1)
            self.simple_lm.bias[0] = self.joiner.output.bias[0] = math.log(odds)
        self.loss_options = loss_options
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_std", torch.ones(num_features))

    @property
    def vocab_size(self) -> int:
        """Return the number of symbols, including blank."""
        return self.simple_am.weight.shape[0]  # a language's own weights may have fewer symbols

    def encode(
        self, x: Tensor, x_lens: Tensor, frame_transform: FrameTransform | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode features.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,).
            frame_transform: a `FrameTransform` that the encoder calls after its subsampling; None:
                no transform. Not every encoder supports a transform.

        Returns:
            Outputs (B, T', D) and their lengths (B,) int64.
        """
        more = {"frame_transform": frame_transform} if frame_transform else {}
        return self.encoder(zero_padding(self.normalise(x), x_lens), x_lens, **more)

    def encode_chunk(
        self, x: Tensor, state: Any, x_lens: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Encode one chunk with a streaming encoder.

        Args:
            x: features (B, chunk_frames + lookahead_frames, num_features).
            state: the state before the chunk. The first state is ``encoder.initial_state``.
            x_lens: (B,) the number of frames in ``x`` that belong to the utterance, 0 after its
                end. All other frames are set to zero after normalisation, as in `encode`. None: all
                frames.

        Returns:
            Outputs (B, chunk_frames / subsampling, D) and the next state.
        """
        x = self.normalise(x)
        if x_lens is not None:
            x = zero_padding(x, x_lens)
        return self.encoder.forward_chunk(x, state)

    def forward(
        self,
        x: Tensor,
        x_lens: Tensor,
        y: Tensor,
        y_lens: Tensor,
        frame_transform: FrameTransform | None = None,
        on_logits: Callable[[Tensor], None] | None = None,
        on_encoded: Callable[[Tensor, Tensor], None] | None = None,
    ) -> TransducerLoss:
        """Return the unscaled losses of each utterance, (B,) float32 each.

        Args:
            x: features (B, T, num_features).
            x_lens: feature frames of each utterance (B,) int64.
            y: transcripts (B, S) int64, padded with 0.
            y_lens: symbols of each transcript (B,) int64.
            frame_transform: see `encode`.
            on_logits: see `asrprune.transducer.loss.transducer_loss`.
            on_encoded: a function that receives the results of `encode`.
        """
        h, h_lens = self.encode(x, x_lens, frame_transform)
        if on_encoded:
            on_encoded(h, h_lens)
        return self.loss(h, h_lens, self.predictor(y), y, y_lens, self.loss_options, on_logits)

    def loss(
        self,
        h: Tensor,
        h_lens: Tensor,
        g: Tensor,
        y: Tensor,
        y_lens: Tensor,
        options: LossOptions,
        on_logits: Callable[[Tensor], None] | None = None,
    ) -> TransducerLoss:
        """Return the losses of encoded utterances.

        Args:
            h: encoder outputs (B, T, D).
            h_lens: encoder frames of each utterance (B,).
            g: predictor outputs (B, S + 1, P).
            y: see `forward`.
            y_lens: see `forward`.
            options: the options of the loss.
            on_logits: see `forward`.
        """
        return transducer_loss(
            self.simple_am(h),
            self.simple_lm(g),
            self.joiner.project_encoder(h),
            self.joiner.project_predictor(g),
            self.joiner,
            y,
            h_lens,
            y_lens,
            options,
            on_logits,
        )

    def normalise(self, x: Tensor) -> Tensor:
        """Return features (..., num_features) with mean 0 and deviation 1 over the training set."""
        return (x - self.feature_mean) / self.feature_std
