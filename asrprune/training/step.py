"""One step of the optimiser: from batches to new weights, and losses fed back to data pruning.

`training_step` is the whole step, in the order in which things happen. The other functions are its
parts. `docs/training_step.md` draws the step, with the files of all parts.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from asrprune.base.randomness import (
    kept_global_generators,
    key_to_seed,
    seed_global_generators,
)
from asrprune.data.batches import Batch
from asrprune.data.tokenizer import UNKNOWN_ID
from asrprune.training.distillation import divergence
from asrprune.training.guards import check_gradient, check_losses, explain_no_memory
from asrprune.training.metrics import Meter
from asrprune.training.schedule import loss_weights, rate_factor
from asrprune.transducer.encoder import FrameTransform

if TYPE_CHECKING:
    from asrprune.training.trainer import Trainer

PRECISION = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepResult:
    """What a step of the optimiser says to the training loop.

    Attributes:
        seconds: audio of the step, over all ranks.
        stopped: whether any rank was asked to stop.
    """

    seconds: float
    stopped: bool


@dataclass(frozen=True)
class FedBack:
    """What data pruning learns from a micro-batch.

    Attributes:
        losses: pruned losses (B,) of one sub-network; with sandwich sampling, of the dense network.
        scale: what the gradients of these losses were scaled by.
        loss_class: the class of the losses (`Masking.loss_class`). Losses of one class can be
            compared.
    """

    losses: Tensor
    scale: float
    loss_class: int


@dataclass(frozen=True)
class Outputs:
    """What a forward pass gives: simple and pruned losses (B,), encoder outputs and their lengths.

    Attributes:
        simple: simple losses (B,).
        pruned: pruned losses (B,).
        h: outputs (B, T, D) of the encoder.
        lengths: their lengths (B,).
    """

    simple: Tensor
    pruned: Tensor
    h: Tensor
    lengths: Tensor


def training_step(trainer: "Trainer", batches: list[Batch], meter: Meter, stop: bool) -> StepResult:
    """Take one step of the optimiser on some micro-batches.

    The loss is ``sum_b loss_b / sum_b (S_b + 1)``. Both sums are over micro-batches and ranks.

    Args:
        trainer: the training.
        batches: the micro-batches of this rank.
        meter: collects losses and times.
        stop: whether this rank is asked to stop after the step.
    """
    at, ranks, masking = trainer.position, trainer.ranks, trainer.masking
    options = trainer.options

    # what all ranks have in this step
    tokens = sum(int((batch["token_lens"] + 1).sum()) for batch in batches)
    own_seconds = sum(batch["seconds"] for batch in batches)
    own_left = sum(batch["seconds_left"] for batch in batches)
    cuts = sum(len(batch["cut_ids"]) for batch in batches)
    clamped = sum(batch["clamped"] for batch in batches)
    frames = sum(int(batch["feature_lens"].sum()) for batch in batches)
    padded = sum(batch["features"][:, :, 0].numel() for batch in batches)
    tokens, seconds, left, cuts, frames, padded, clamped, stops = ranks.total(
        tokens, own_seconds, own_left, cuts, frames, padded, clamped, stop
    )

    # random draws, learning rate and masks of this step
    seed_global_generators(key_to_seed("step", trainer.config.seed, at.step, ranks.rank))
    # as of the step's end: at its start, the first one's rate would be zero
    elapsed = trainer.elapsed(seconds)
    factor = rate_factor(trainer.progress.at(elapsed), options.optimizer)
    progress = trainer.progress.reach(elapsed)  # of all but the rate
    for group in trainer.optimizer.param_groups:
        group["lr"] = options.optimizer.lr * factor
    trainer.optimizer.zero_grad(set_to_none=True)
    if masking:
        language = trainer.data.language(at.epoch, at.batches)
        masking.start_step(at.step, progress, language)

    # gradients of all sub-networks; losses go to data pruning
    for number, batch in enumerate(batches):
        with explain_no_memory(batch):
            fed_back = backward(trainer, batch, number, progress, tokens, meter)
        losses = fed_back.losses.cpu()  # waits for a GPU, whose time is not that of the feedback
        started = time.perf_counter()
        trainer.feedback(batch, losses, fed_back.scale, fed_back.loss_class)
        meter.add(pruning=time.perf_counter() - started)
    ranks.reduce_gradients(p for p in trainer.model.parameters() if p.requires_grad)
    trainer.scaler.unscale_(trainer.optimizer)

    # the gate: which blocks or units the step may move
    gate, passes = None, (len(batches) * ranks.world, 0)
    if masking:
        gate = masking.gate(at.step, len(batches))
        passes = masking.passes(at.step, len(batches))
        if gate is not None and masking.gates_gradients:
            trainer.optimizer.gate_gradients(gate)
    limit = options.optimizer.clip_norm or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), limit).item()
    skipped = trainer.scaler.is_enabled() and not math.isfinite(norm)
    if not skipped:
        check_gradient(norm, batches)
        meter.add(norm=norm, steps=1)
        if masking:
            masking.observe(gate)
    gates = () if gate is None else (gate,)
    # where the step has to be skipped, the scaler skips it and lowers its scale
    trainer.scaler.step(trainer.optimizer, *gates)
    trainer.scaler.update()
    meter.add(skipped=int(skipped), seconds=own_seconds)

    # where the training stands now
    at.step += 1
    at.batches += len(batches)
    at.seconds += seconds
    seen = trainer.seen
    seen.cuts += int(cuts)
    seen.seconds += seconds
    seen.seconds_left += left
    seen.frames += int(frames)
    seen.padded_frames += int(padded)
    seen.clamped += int(clamped)
    seen.passes += passes[0]
    seen.teacher_passes += passes[1]
    if trainer.teacher is not None:
        seen.teacher_passes += len(batches) * ranks.world
    if at.step % options.average_period == 0:
        trainer.average.update(trainer.model)
    return StepResult(seconds, stops > 0)


def backward(
    trainer: "Trainer", batch: Batch, number: int, progress: float, tokens: float, meter: Meter
) -> FedBack:
    """Add the gradients of a micro-batch: the mean over its sub-networks.

    Args:
        trainer: the training.
        batch: the micro-batch.
        number: position of the micro-batch in its step, from 0.
        progress: progress of the training, 0 to 1. It never falls.
        tokens: number of tokens of the whole step. The loss is divided by it.
        meter: collects the losses.
    """
    masking, scaler = trainer.masking, trainer.scaler
    networks = masking.networks(trainer.position.step, number) if masking else [None]
    # the losses of this network go to data pruning; a sandwich has the dense network last
    reported = networks[-1]
    learners = [network for network in networks if network and masking.learns(network)]
    dense = None
    if learners and len(networks) == 1:
        dense = dense_outputs(trainer, batch)
    elif learners:
        networks = networks[::-1]  # the dense network first: its outputs teach the others
    fixed = teacher_outputs(trainer, batch)
    for network in networks:
        with masking.applied(network) if network else nullcontext():
            wanted = dense if network in learners else None
            loss, outputs = weighted_loss(
                trainer, batch, progress, meter, network is reported, wanted, fixed
            )
            scaler.scale(loss / (tokens * len(networks))).backward()
        if network is reported:
            losses, dense = outputs.pruned.detach(), outputs.h.detach()
    weight = loss_weights(progress, trainer.config.loss)[1]
    loss_class = masking.loss_class(reported) if reported else 0
    return FedBack(losses, scaler.get_scale() * weight / (tokens * len(networks)), loss_class)


def weighted_loss(
    trainer: "Trainer",
    batch: Batch,
    progress: float,
    meter: Meter,
    reported: bool = True,
    dense: Tensor | None = None,
    fixed: Tensor | None = None,
) -> tuple[Tensor, Outputs]:
    """Return the weighted loss of a batch, summed over its cuts, and the outputs of its pass.

    Args:
        trainer: the training.
        batch: the batch.
        progress: progress of the training, 0 to 1.
        meter: collects the losses.
        reported: whether data pruning receives the logits.
        dense: outputs (B, T, D) of the dense network to learn from; None: it does not teach.
        fixed: outputs (B, T, D') of the fixed teacher; None: there is none.
    """
    config, model = trainer.config, trainer.model
    outputs = forward(trainer, batch, reported)
    check_losses(outputs.simple + outputs.pruned, batch)
    weights = loss_weights(progress, config.loss)
    losses = weights[0] * outputs.simple + weights[1] * outputs.pruned
    tokens = int((batch["token_lens"] + 1).sum())
    found, scale = None, 0.0
    if dense is not None:
        found = divergence(outputs.h, dense, outputs.lengths, model.simple_am)
        scale = config.weight_pruning.supernet.distillation.scale
    elif fixed is not None:
        found = divergence(
            outputs.h, fixed, outputs.lengths, model.simple_am, trainer.teacher.simple_am
        )
        scale = config.training.teacher_scale
    if found is not None:
        losses = losses + weights[1] * scale * found
        meter.add(divergence=found.detach().sum(), taught=tokens)
    factors = trainer.data.sampler.weights_of(batch["cut_ids"])
    if factors is not None:
        losses = losses * torch.from_numpy(factors).to(losses)
    simple, pruned = outputs.simple.detach().sum(), outputs.pruned.detach().sum()
    meter.add(tokens=tokens, simple=simple, loss=pruned)
    return losses.sum(), outputs


def forward(trainer: "Trainer", batch: Batch, reported: bool = True) -> Outputs:
    """Run the model on a batch, in the training's precision.

    Args:
        trainer: the training.
        batch: the batch.
        reported: whether data pruning receives the logits.
    """
    model = trainer.model
    x, x_lens, y, y_lens = _on_device(
        trainer, batch, "features", "feature_lens", "tokens", "token_lens"
    )
    # a language with own weights may have fewer symbols than the tokenizer
    y = y.masked_fill(y >= model.vocab_size, UNKNOWN_ID)
    encoded: list[Tensor] = []
    with _precision(trainer):
        simple, pruned = model(
            x,
            x_lens,
            y,
            y_lens,
            _frame_transform(trainer, batch),
            trainer.feedback.on_logits if reported and model.training else None,
            lambda *outputs: encoded.extend(outputs),
        )
    return Outputs(simple, pruned, *encoded)


def scan(trainer: "Trainer", batch: Batch, meter: Meter) -> None:
    """Run a forward and a backward pass that take as much memory as any pass of a training."""
    masking, dense = trainer.masking, None
    if masking and trainer.config.weight_pruning.supernet.distillation.scale:
        dense = dense_outputs(trainer, batch)
    fixed = teacher_outputs(trainer, batch)
    # a masked pass also holds the masked copies of the weights until its backward pass ends
    largest = masking.largest() if masking else None
    with masking.applied(largest) if largest else nullcontext():
        weighted_loss(trainer, batch, 0.0, meter, dense=dense, fixed=fixed)[0].backward()


@torch.no_grad()
def dense_outputs(trainer: "Trainer", batch: Batch) -> Tensor:
    """Return the outputs (B, T, D) of the dense network's encoder, without dropout.

    The next pass learns from these outputs and makes the same random draws. For example, an encoder
    with random chunk sizes uses the same chunk size in both passes.
    """
    x, x_lens = _on_device(trainer, batch, "features", "feature_lens")
    transform = _frame_transform(trainer, batch)
    trainer.model.encoder.eval()
    # In an autocast context of its own: the next pass would otherwise reuse the cached copies of
    # the weights, which have no gradients.
    with kept_global_generators(), _precision(trainer):
        h, _ = trainer.model.encode(x, x_lens, transform)
    trainer.model.encoder.train()
    return h


@torch.no_grad()
def teacher_outputs(trainer: "Trainer", batch: Batch) -> Tensor | None:
    """Return the outputs (B, T, D') of the fixed teacher's encoder; None if there is no teacher."""
    if trainer.teacher is None:
        return None
    x, x_lens = _on_device(trainer, batch, "features", "feature_lens")
    with kept_global_generators(), _precision(trainer):
        h, _ = trainer.teacher.encode(x, x_lens, _frame_transform(trainer, batch))
    return h


def _precision(trainer: "Trainer") -> torch.autocast:
    precision = PRECISION[trainer.config.training.precision]
    enabled = precision != torch.float32
    return torch.autocast(trainer.ranks.device.type, precision, enabled=enabled)


def _on_device(trainer: "Trainer", batch: Batch, *names: str) -> list[Tensor]:
    return [batch[name].to(trainer.ranks.device, non_blocking=True) for name in names]


def _frame_transform(trainer: "Trainer", batch: Batch) -> FrameTransform | None:
    """Return what drops encoder frames of a training batch; None if none are dropped."""
    dropping = trainer.data.dataset.dropping
    if not (dropping and trainer.model.training):
        return None
    return dropping.frame_transform(batch["cut_ids"], batch["token_lens"].tolist())
