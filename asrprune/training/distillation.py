"""Compute the loss of distillation: a network also learns from the scores of a teacher.

The teacher may be a trained model (`asrprune.training.teacher`). Or, in place, the widest network
of a step teaches the other networks of this step (Yu and Huang 2019, arXiv 1903.05134; for
transducers, TODM, arXiv 2309.01947). The teacher's targets are its encoder's scores of symbols at
each frame. A shared decoder does not sharpen these scores, so they carry much information (CoDERT,
arXiv 2106.07734). No lattice is needed for them. Network and teacher need not agree on an
alignment.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def divergence(
    h: Tensor,
    teacher: Tensor,
    lengths: Tensor,
    head: nn.Linear,
    teacher_head: nn.Linear | None = None,
) -> Tensor:
    """Return how far an encoder's scores are from the teacher's scores: (B,) float32, in nats.

    The result is the sum over an utterance's frames of
    ``KL(softmax(teacher_head(teacher)) || softmax(head(h)))``. Only ``h`` gets gradients. If the
    head learnt from the divergence too, it could make both sides equal by giving all symbols equal
    scores.

    Args:
        h: outputs (B, T, D) of the network that learns.
        teacher: outputs (B, T, D') of the teacher.
        lengths: number of frames (B,) of each utterance.
        head: a layer with D inputs and a score for each symbol.
        teacher_head: a layer with D' inputs and a score for each symbol. None: ``head``.
    """
    size = min(h.size(1), teacher.size(1))  # frames after the longest utterance may differ
    h, teacher = h[:, :size], teacher[:, :size]
    pairs = (h, head), (teacher.detach(), teacher_head or head)
    with torch.autocast(h.device.type, enabled=False):
        found, wanted = (
            functional.linear(x.to(one.weight.dtype), one.weight.detach(), one.bias.detach())
            for x, one in pairs
        )
        found, wanted = found.log_softmax(-1), wanted.log_softmax(-1)
        frames = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
    padding = torch.arange(h.size(1), device=h.device) >= lengths[:, None]
    return frames.masked_fill(padding, 0).sum(1)
