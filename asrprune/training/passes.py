"""The passes of a micro-batch: the losses of its sub-networks, and their gradients."""

from contextlib import nullcontext

import torch
from torch import Tensor

from asrprune.config import Config
from asrprune.corpus.batches import Batch
from asrprune.randomness import kept_global_generators
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
    """Forward and backward passes, in the training's precision; it keeps no state."""

    def __init__(
        self,
        config: Config,
        model: Transducer,
        data: TrainingData,
        feedback: ScoreFeedback,
        masking: Masking | None,
        device: torch.device,
    ):
        self.config = config
        self.model = model
        self.data = data
        self.feedback = feedback
        self.masking = masking
        self.device = device

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
        """Gradients of a micro-batch: the mean over its sub-networks.

        Returns what data pruning is told: the pruned losses (B,) of its sub-network, in a sandwich
        of the dense one; what the gradients of these were scaled by; and the sub-network's
        class of losses (`Masking.loss_class`).

        Args:
            step: the optimiser's.
            number: of the micro-batch within it.
            progress: of the training, 0 to 1, which never goes back.
            tokens: of the whole step, which the loss is divided by.
        """
        networks = self.masking.networks(step, number) if self.masking else [None]
        told = networks[-1]  # what data pruning is told of; in a sandwich the dense one
        learners = [one for one in networks if one and self.masking.learns(one)]
        teacher = None
        if learners and len(networks) == 1:
            teacher = self._dense_outputs(batch)
        elif learners:
            networks = networks[::-1]  # the dense one's own outputs teach the others
        for network in networks:
            with self.masking.applied(network) if network else nullcontext():
                wanted = teacher if network in learners else None
                loss, losses, outputs = self.loss(batch, progress, meter, network is told, wanted)
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
        teacher: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted loss of a batch, summed over its cuts.

        Also their pruned losses (B,) and the encoder's outputs (B, T, D), both without gradients.

        Args:
            told: whether data pruning is to see the logits.
            teacher: the dense network's outputs (B, T, D), to be learnt from.
        """
        simple, pruned, h, lengths = self.forward(batch, told)
        check_losses(simple + pruned, batch)
        weights = loss_weights(progress, self.config.loss)
        losses = weights[0] * simple + weights[1] * pruned
        tokens = int((batch["token_lens"] + 1).sum())
        if teacher is not None:
            found = divergence(h, teacher, lengths, self.model.simple_am)
            scale = self.config.weight_pruning.supernet.distillation.scale
            losses = losses + weights[1] * scale * found
            meter.add(divergence=found.detach().sum(), taught=tokens)
        factors = self.data.sampler.weights_of(batch["cut_ids"])
        if factors is not None:
            losses = losses * torch.from_numpy(factors).to(losses)
        meter.add(tokens=tokens, simple=simple.detach().sum(), loss=pruned.detach().sum())
        return losses.sum(), pruned.detach(), h.detach()

    def forward(self, batch: Batch, told: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Simple and pruned loss of each utterance, (B,) each, and what the encoder returned."""
        x, x_lens, y, y_lens = self._on_device(
            batch, "features", "feature_lens", "tokens", "token_lens"
        )
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
        """Forward and backward, with all that such a pass may hold."""
        teacher = None
        if self.masking and self.config.weight_pruning.supernet.distillation.scale:
            teacher = self._dense_outputs(batch)
        # the copies that a mask works on are made for the backward pass to hold, too
        largest = self.masking.largest() if self.masking else None
        with self.masking.applied(largest) if largest else nullcontext():
            self.loss(batch, 0.0, meter, teacher=teacher)[0].backward()

    @torch.no_grad()
    def _dense_outputs(self, batch: Batch) -> Tensor:
        """The encoder's outputs (B, T, D) of all weights, without dropout.

        The pass that learns from it draws what this pass has drawn: an encoder that chooses the
        size of its chunks at random chooses the same one twice.
        """
        x, x_lens = self._on_device(batch, "features", "feature_lens")
        transform = self._frame_transform(batch)
        self.model.encoder.eval()
        # apart from the pass that follows: autocast would give that one copies without gradients
        with kept_global_generators(), self._precision():
            h, _ = self.model.encode(x, x_lens, transform)
        self.model.encoder.train()
        return h

    def _precision(self) -> torch.autocast:
        precision = PRECISION[self.config.training.precision]
        return torch.autocast(self.device.type, precision, enabled=precision != torch.float32)

    def _on_device(self, batch: Batch, *names: str) -> list[Tensor]:
        return [batch[name].to(self.device, non_blocking=True) for name in names]

    def _frame_transform(self, batch: Batch) -> FrameTransform | None:
        """What drops encoder frames of a training batch, where data pruning asks for that."""
        dropping = self.data.dataset.dropping
        if not (dropping and self.model.training):
            return None
        return dropping.frame_transform(batch["cut_ids"], batch["token_lens"].tolist())
