"""Compute the simple transducer loss. Its joiner only adds, so no (B, T, S, V) tensor is needed.

The occupations of the simple loss choose the band of the pruned loss. The gradient of the simple
loss trains encoder and predictor so that these occupations become useful. Source: Kuang et al. 2022
(arXiv 2206.13236), sections 2.2 and 2.4.
"""

import torch
from torch import Tensor
from torch.nn import functional

from asrprune.transducer.lattice import Occupations, delay_bonus, lattice_loss
from asrprune.transducer.options import LossOptions


def simple_loss(
    am: Tensor, lm: Tensor, y: Tensor, t_lens: Tensor, y_lens: Tensor, options: LossOptions
) -> tuple[Tensor, Occupations]:
    """Return the smoothed simple loss of each utterance, and the occupations of its lattice.

    Args:
        am: (B, T, V) unnormalised scores of the encoder; blank is 0.
        lm: (B, S + 1, V) unnormalised scores of the predictor.
        y: (B, S) int64 symbols, 0 past the lengths.
        t_lens: (B,) int64 frames.
        y_lens: (B,) int64 symbols.
        options: the options of the loss.

    Returns:
        Losses (B,), differentiable in ``am`` and ``lm``, and the occupations (constants).
    """
    px, py = simple_log_probs(am, lm, y, y_lens, options.lm_scale, options.am_scale)
    if options.delay_penalty:
        bonus = delay_bonus(t_lens, am.shape[1], options.delay_penalty)
        px = px + bonus[:, None].to(px.dtype)
    return lattice_loss(px, py, t_lens, y_lens, options.topology == "modified")


def simple_log_probs(
    am: Tensor, lm: Tensor, y: Tensor, y_lens: Tensor, lm_scale: float, am_scale: float
) -> tuple[Tensor, Tensor]:
    """Return smoothed log-probabilities of symbols (B, S, T) and of blank (B, S + 1, T).

    The result is ``(1 - lm_scale - am_scale) * joint + lm_scale * lm_only + am_scale * am_only``:

    - ``joint`` normalises the sum of both scores.
    - ``lm_only`` normalises the predictor's scores.
    - ``am_only`` normalises the encoder's scores plus a unigram distribution. This distribution is
      the average of softmax(lm) over all positions of the batch without padding. So with ``am_scale
      > 0``, the utterances of a batch depend on each other.
    """
    # scores of the arcs from each network: (B, S, T) or (B, S + 1, T) by broadcasting
    num_frames = am.shape[1]
    wanted = functional.pad(y, (1, 0))[:, None].expand(-1, num_frames, -1)  # blank, then symbols
    am_blank, am_symbol = am.gather(2, wanted).transpose(1, 2).split([1, y.shape[1]], dim=1)
    lm_blank, lm_symbol = lm[:, :, :1], lm[:, :-1].gather(2, y[:, :, None])

    am_exp, am_max = _exp(am)
    lm_exp, lm_max = _exp(lm)
    joint_norm = _log(lm_exp @ am_exp.transpose(1, 2)) + lm_max + am_max.transpose(1, 2)
    joint_scale = 1.0 - lm_scale - am_scale
    px = joint_scale * (am_symbol + lm_symbol - joint_norm[:, :-1])
    py = joint_scale * (am_blank + lm_blank - joint_norm)
    if lm_scale:
        lm_norm = lm_exp.sum(2, keepdim=True).log() + lm_max
        px = px + lm_scale * (lm_symbol - lm_norm[:, :-1])
        py = py + lm_scale * (lm_blank - lm_norm)
    if am_scale:
        unigram = _average(lm_exp / lm_exp.sum(2, keepdim=True), y_lens)  # (V,)
        am_norm = (_log(am_exp @ unigram[:, None]) + am_max).transpose(1, 2)  # (B, 1, T)
        log_unigram = _log(unigram)
        px = px + am_scale * (am_symbol + log_unigram[y][:, :, None] - am_norm)
        py = py + am_scale * (am_blank + log_unigram[0] - am_norm)
    return px, py


def _exp(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return exponentials after subtracting the maximum of each row, and the maxima (constants)."""
    highest = scores.detach().amax(dim=2, keepdim=True)
    return (scores - highest).exp(), highest


def _log(x: Tensor) -> Tensor:
    """Return the logarithm of a sum of products of exponentials, which may underflow to zero."""
    return (x + torch.finfo(x.dtype).tiny).log()


def _average(probabilities: Tensor, y_lens: Tensor) -> Tensor:
    """Return the mean over valid positions 0 .. S_b of all utterances: (B, S + 1, V) -> (V,)."""
    positions = torch.arange(probabilities.shape[1], device=y_lens.device)
    valid = (positions <= y_lens[:, None]).to(probabilities.dtype)
    return torch.einsum("bs,bsv->v", valid, probabilities) / valid.sum()
