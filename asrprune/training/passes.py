"""Runs the passes of a micro-batch: the losses of its sub-networks, and their gradients."""

from contextlib import nullcontext

import torch
from torch import Tensor

from asrprune.base.randomness import kept_global_generators
from asrprune.config import Config
from asrprune.data.batches import Batch
from asrprune.data.tokenizer import UNKNOWN_ID
from asrprune.training.distillation import divergence
from asrprune.training.guards import check_losses
from asrprune.training.masking import Masking
from asrprune.training.metrics import Meter
from asrprune.training.pruning import ScoreFeedback, TrainingData
from asrprune.training.schedule import loss_weights
from asrprune.transducer.encoder import FrameTransform
from asrprune.transducer.model import Transducer

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Passes:
    """Runs forward and backward passes in the training's precision. The object keeps no state."""

    def __init__(
        self,
        config: Config,
        model: Transducer,
        data: TrainingData,
        feedback: ScoreFeedback,
        masking: Masking | None,
        device: torch.device,
        teacher: Transducer | None = None,
    ):
        """Prepare the passes of a training.

        Args:
            config: the configuration of the training.
            model: the model.
            data: the batches and how time is dropped in them.
            feedback: tells the scores of a batch to the sampler.
            masking: the masks; None: no weights are pruned.
            device: the device of the model.
            teacher: a trained model to learn from too; None: there is none.
        """
        self.config = config
        self.model = model
        self.data = data
        self.feedback = feedback
        self.masking = masking
        self.device = device
        self.teacher = teacher

    def backward(
        self,
        batch: Batch,
        step: int,
        number: int,
        progress: float,
        tokens: float,
        scaler: torch.amp.GradScaler,
        meter: Meter,
    ) -> tuple[Tensor, float, int]:
        """Add the gradients of a micro-batch: the mean over its sub-networks.

        Args:
            batch: the micro-batch.
            step: number of the optimiser's step.
            number: position of the micro-batch in its step, from 0.
            progress: progress of the training, 0 to 1. It never falls.
            tokens: number of tokens of the whole step. The loss is divided by it.
            scaler: scales the loss, so that gradients of low precision do not underflow.
            meter: collects the losses.

        Returns:
            The losses to feed back to data pruning, (B,) pruned losses of one sub-network (with
            sandwich sampling the dense network); the scale of their gradients; and the class of
            these losses (`Masking.loss_class`).
        """
        networks = self.masking.networks(step, number) if self.masking else [None]
        # the losses of this network go to data pruning; a sandwich has the dense network last
        told = networks[-1]
        learners = [one for one in networks if one and self.masking.learns(one)]
        teacher = None
        if learners and len(networks) == 1:
            teacher = self._dense_outputs(batch)
        elif learners:
            networks = networks[::-1]  # the dense network first: its outputs teach the others
        fixed = self._teacher_outputs(batch) if self.teacher else None
        for network in networks:
            with self.masking.applied(network) if network else nullcontext():
                wanted = teacher if network in learners else None
                loss, losses, outputs = self.loss(
                    batch, progress, meter, network is told, wanted, fixed
                )
                scaler.scale(loss / (tokens * len(networks))).backward()
            if network is told:
                scores, teacher = losses, outputs
        weight = loss_weights(progress, self.config.loss)[1]
        loss_class = self.masking.loss_class(told) if told else 0
        return scores, scaler.get_scale() * weight / (tokens * len(networks)), loss_class

    def loss(
        self,
        batch: Batch,
        progress: float,
        meter: Meter,
        told: bool = True,
        dense: Tensor | None = None,
        fixed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weighted loss of a batch, summed over its cuts.

        Args:
            batch: the batch.
            progress: progress of the training, 0 to 1.
            meter: collects the losses.
            told: whether data pruning receives the logits.
            dense: outputs (B, T, D) of the dense network to learn from; None: it does not teach.
            fixed: outputs (B, T, D') of the fixed teacher; None: there is none.

        Returns:
            The weighted loss; the pruned losses (B,) of the cuts; and the outputs (B, T, D) of the
            encoder. Pruned losses and outputs have no gradients.
        """
        simple, pruned, h, lengths = self.forward(batch, told)
        check_losses(simple + pruned, batch)
        weights = loss_weights(progress, self.config.loss)
        losses = weights[0] * simple + weights[1] * pruned
        tokens = int((batch["token_lens"] + 1).sum())
        found, scale = None, 0.0
        if dense is not None:
            found = divergence(h, dense, lengths, self.model.simple_am)
            scale = self.config.weight_pruning.supernet.distillation.scale
        elif fixed is not None:
            found = divergence(h, fixed, lengths, self.model.simple_am, self.teacher.simple_am)
            scale = self.config.training.teacher_scale
        if found is not None:
            losses = losses + weights[1] * scale * found
            meter.add(divergence=found.detach().sum(), taught=tokens)
        factors = self.data.sampler.weights_of(batch["cut_ids"])
        if factors is not None:
            losses = losses * torch.from_numpy(factors).to(losses)
        meter.add(tokens=tokens, simple=simple.detach().sum(), loss=pruned.detach().sum())
        return losses.sum(), pruned.detach(), h.detach()

    def forward(self, batch: Batch, told: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the losses of a batch, and the outputs of the encoder.

        Args:
            batch: the batch.
            told: whether data pruning receives the logits.

        Returns:
            The simple losses (B,), the pruned losses (B,), the outputs (B, T, D) of the encoder,
            and their lengths (B,).
        """
        x, x_lens, y, y_lens = self._on_device(
            batch, "features", "feature_lens", "tokens", "token_lens"
        )
        # a language with own weights may have fewer symbols than the tokenizer
        y = y.masked_fill(y >= self.model.vocab_size, UNKNOWN_ID)
        encoded: list[Tensor] = []
        with self._precision():
            simple, pruned = self.model(
                x,
                x_lens,
                y,
                y_lens,
                self._frame_transform(batch),
                self.feedback.on_logits if told and self.model.training else None,
                lambda *outputs: encoded.extend(outputs),
            )
        return simple, pruned, *encoded

    def scan(self, batch: Batch, meter: Meter) -> None:
        """Run a forward and a backward pass that take as much memory as any pass of a training."""
        dense = None
        if self.masking and self.config.weight_pruning.supernet.distillation.scale:
            dense = self._dense_outputs(batch)
        fixed = self._teacher_outputs(batch) if self.teacher else None
        # a masked pass also holds the masked copies of the weights until its backward pass ends
        largest = self.masking.largest() if self.masking else None
        with self.masking.applied(largest) if largest else nullcontext():
            self.loss(batch, 0.0, meter, dense=dense, fixed=fixed)[0].backward()

    @torch.no_grad()
    def _dense_outputs(self, batch: Batch) -> Tensor:
        """Return the outputs (B, T, D) of the dense network's encoder, without dropout.

        The next pass learns from these outputs and makes the same random draws. For example, an
        encoder with random chunk sizes uses the same chunk size in both passes.
        """
        x, x_lens = self._on_device(batch, "features", "feature_lens")
        transform = self._frame_transform(batch)
        self.model.encoder.eval()
        # In an autocast context of its own: the next pass would otherwise reuse the cached copies
        # of the weights, which have no gradients.
        with kept_global_generators(), self._precision():
            h, _ = self.model.encode(x, x_lens, transform)
        self.model.encoder.train()
        return h

    @torch.no_grad()
    def _teacher_outputs(self, batch: Batch) -> Tensor:
        """Return the outputs (B, T, D') of the fixed teacher's encoder."""
        x, x_lens = self._on_device(batch, "features", "feature_lens")
        with kept_global_generators(), self._precision():
            h, _ = self.teacher.encode(x, x_lens, self._frame_transform(batch))
        return h

    def _precision(self) -> torch.autocast:
        precision = PRECISION[self.config.training.precision]
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32)

    def _on_device(self, batch: Batch, *names: str) -> list[Tensor]:
        return [batch[name].to(self.device, non_blocking=True) for name in names]

    def _frame_transform(self, batch: Batch) -> FrameTransform | None:
        """Return what drops encoder frames of a training batch; None if none are dropped."""
        dropping = self.data.dataset.dropping
        if not (dropping and self.model.training):
            return None
        return dropping.frame_transform(batch["cut_ids"], batch["token_lens"].tolist())
