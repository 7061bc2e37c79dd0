"""In-place distillation: what a sparse sub-network learns from the dense network in the same step.

The widest network of a step teaches the others of that step (Yu and Huang 2019, arXiv 1903.05134;
of transducers, TODM, arXiv 2309.01947). Here the teacher's word is its encoder's scores of symbols
at each frame, which a shared decoder does not sharpen (CoDERT, arXiv 2106.07734): they are rich, no
lattice has to be made for them, and sub-network and teacher need not agree on an alignment.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


def divergence(h: Tensor, teacher: Tensor, lengths: Tensor, head: nn.Linear) -> Tensor:
    """How far the scores of an encoder's outputs are from the teacher's, in nats, (B,) float32.

    The sum over an utterance's frames of ``KL(softmax(head(teacher)) || softmax(head(h)))``. It
    moves nothing but what ``h`` comes from: were the head to learn from it too, it could make both
    sides equal by saying nothing.

    Args:
        h: (B, T, D) of the sub-network.
        teacher: (B, T, D) of the dense network.
        lengths: (B,) frames of each utterance.
        head: D inputs, a score for each symbol.
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
