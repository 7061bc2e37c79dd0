"""In-place distillation: a sparse sub-network learns from the dense network in the same step.

The widest network of a step teaches the other networks of this step (Yu and Huang 2019, arXiv
1903.05134; for transducers, TODM, arXiv 2309.01947). The teacher's targets are its encoder's scores
of symbols at each frame. A shared decoder does not sharpen these scores, so they carry much
information (CoDERT, arXiv 2106.07734). No lattice is needed for them. Sub-network and teacher need
not agree on an alignment.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def divergence(h: Tensor, teacher: Tensor, lengths: Tensor, head: nn.Linear) -> Tensor:
    """Return how far an encoder's scores are from the teacher's scores: (B,) float32, in nats.

    The result is the sum over an utterance's frames of
    ``KL(softmax(head(teacher)) || softmax(head(h)))``. Only ``h`` gets gradients. If the head
    learnt from the divergence too, it could make both sides equal by giving all symbols equal
    scores.

    Args:
        h: outputs (B, T, D) of the sub-network.
        teacher: outputs (B, T, D) of the dense network.
        lengths: number of frames (B,) of each utterance.
        head: a layer with D inputs and a score for each symbol.
    """
    weight, bias = head.weight.detach(), head.bias.detach()
    with torch.autocast(h.device.type, enabled=False):
        found, wanted = (
            functional.linear(x.to(weight.dtype), weight, bias).log_softmax(-1)
            for x in (h, teacher.detach())
        )
        frames = functional.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
    padding = torch.arange(h.size(1), device=h.device) >= lengths[:, None]
    return frames.masked_fill(padding, 0).sum(1)
